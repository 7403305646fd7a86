#!/bin/bash
# Two machines out of one: network namespaces `one` (10.77.0.1) and `two` (10.77.0.2) with a cable between them. Needs root.
#   two_machines.sh up
#   two_machines.sh on one COMMAND...      runs there, under that host name, with the files of here
#   two_machines.sh cut / two_machines.sh mend     the cable
#   two_machines.sh down
set -e
hosts=/run/two_machines.hosts
case $1 in
up)
    printf '127.0.0.1 localhost\n10.77.0.1 one\n10.77.0.2 two\n' > $hosts
    ip netns add one
    ip netns add two
    ip link add eth0 netns one type veth peer name eth0 netns two
    for name in one two; do
        ip -n $name addr add "$(grep " $name$" $hosts | cut -d' ' -f1)/24" dev eth0
        ip -n $name link set lo up
        ip -n $name link set eth0 up
    done
    ;;
on)
    name=$2
    shift 2
    exec nsenter --net=/run/netns/$name unshare --uts --mount bash -c \
        'hostname "$1"; mount --bind "$2" /etc/hosts; shift 2; exec "$@"' _ "$name" $hosts "$@"
    ;;
cut) ip -n two link set eth0 down ;;
mend) ip -n two link set eth0 up ;;
down)
    ip netns del one
    ip netns del two
    rm $hosts
    ;;
*)
    sed -n '2,6s/^# //p' "$0" >&2
    exit 2
    ;;
esac
