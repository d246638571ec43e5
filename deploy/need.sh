#!/bin/sh
# need.sh PROGRAM: install a Debian package of that name where the program is missing and that
# is possible; otherwise say in one line what to install.
set -eu
PATH=$PATH:/usr/sbin:/sbin
command -v "$1" >/dev/null 2>&1 && exit 0
if [ "$(id -u)" = 0 ]; then as_root=; elif sudo -n true 2>/dev/null; then as_root=sudo; else as_root=no; fi
if [ "$as_root" = no ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "the tests need '$1'; install it, for example: sudo apt-get install $1" >&2
    exit 1
fi
echo "installing $1 ..."
$as_root apt-get update -qq
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends "$1" >/dev/null
