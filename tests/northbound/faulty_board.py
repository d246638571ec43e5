"""A ThingsBoard with faults: a table of fates says what it does with which messages."""

from __future__ import annotations

import enum

import attrs
import trio

from gateway.northbound.mqtt import Delivery, Publication

from ..fakes import FakeThingsBoard


class Act(enum.Enum):
    TAKE = "as it would without a fate"
    LOSE = "it never arrives, and has no PUBACK"
    CLOSE = "it never arrives, and the link ends"
    REFUSE = "its PUBACK is `code`"
    REFUSE_AND_CLOSE = "its PUBACK is `code`, and then the link ends"


@attrs.define
class Fate:
    """What happens to messages with `contains`, and without `lacks`, on `topic` (None: on any).

    times: to so many of them; None for all.  seconds: before it happens.
    first_link, last_link: only on these links, counted from 1.
    """

    act: Act = Act.TAKE
    contains: str = ""
    lacks: str = "\0"
    topic: str | None = None
    code: int = 0x80
    seconds: float = 0.0
    times: int | None = None
    first_link: int = 1
    last_link: int | None = None
    hits: int = 0

    def meets(self, topic: str, text: str, link: int) -> bool:
        return (
            (self.topic is None or topic == self.topic)
            and self.contains in text
            and self.lacks not in text
            and (self.times is None or self.hits < self.times)
            and self.first_link <= link <= (self.last_link or link)
        )


class FaultyBoard(FakeThingsBoard):
    """fates: the first that meets a message decides; a message that meets none is taken."""

    def __init__(self, *fates: Fate) -> None:
        super().__init__()
        self.fates = list(fates)

    async def send(self, publication: Publication) -> Delivery:
        topic, text = publication.topic, publication.payload.decode()
        fate = next((f for f in self.fates if f.meets(topic, text, self.links)), Fate())
        fate.hits += 1
        if fate.seconds:
            await trio.sleep(fate.seconds)
        if fate.act is Act.TAKE:
            return await super().send(publication)
        await trio.lowlevel.checkpoint()
        delivery = Delivery()
        if fate.act in (Act.REFUSE, Act.REFUSE_AND_CLOSE):
            delivery.code = fate.code
            delivery.acknowledged.set()
        if fate.act in (Act.CLOSE, Act.REFUSE_AND_CLOSE):
            self.cut()
        return delivery
