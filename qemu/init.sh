#!/bin/busybox sh
# shellcheck shell=dash
# Init of the guest, run by busybox. Its configuration, /etc/guest.conf, sets:
#   HOSTROOT  1: the host's root is mounted (tag "wcfsroot") and becomes the root
#   NET       1: user mode network
#   TTYMODE   arguments of stty for the program's terminal
#   STREAMS   those of stdin, stdout, stderr that are not the terminal: each is a pipe, copied from or
#             to the virtio port "wcfs.NAME"
#   END       what is written to the output pipes when the program has ended
# and defines the functions:
#   mounts    mounts what the caller asked for, below $R
# /etc/program runs the program.
set -u
busybox=/bin/busybox
b() { "$busybox" "$@"; }
say() { echo "$*" >&3; }
fail() { say "fail $*"; b sleep 5; b poweroff -f; }

case ${1-} in
stage2)
    busybox=/run/wcfs/busybox
    etc=/run/wcfs
    # shellcheck source=/dev/null
    . $etc/guest.conf
    ;;
*) # by the kernel, which hands on the parameters it does not know
    b mount -t devtmpfs dev /dev 2>/dev/null
    b mount -t proc proc /proc
    b mount -t sysfs sys /sys
    b stty -F /dev/ttyS1 raw -echo
    exec 3<>/dev/ttyS1
    say ready
    # shellcheck source=/dev/null
    . /etc/guest.conf
    for m in /modules/*.ko; do
        [ -e "$m" ] && { b insmod "$m" || echo "insmod $m failed" >/dev/console; }
    done
    b ip link set lo up
    b hostname guest
    if [ "$NET" = 1 ]; then
        b ip link set eth0 up || fail "no network card: the kernel needs CONFIG_VIRTIO_NET and CONFIG_VIRTIO_PCI"
        b ip addr add 10.0.2.15/24 dev eth0
        b ip route add default via 10.0.2.2
    fi
    if [ "$HOSTROOT" = 1 ]; then
        b mkdir /host
        b mount -t 9p -o "ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000,access=any" wcfsroot /host ||
            fail "the host's root cannot be mounted: the kernel needs CONFIG_9P_FS, CONFIG_NET_9P_VIRTIO and CONFIG_VIRTIO_PCI"
        # The root is a small tmpfs into which the host's folders are bound: so there may be mount
        # points that the host does not have.
        R=/root
        b mount -t tmpfs -o mode=755 root $R
        for f in /host/* /host/.[!.]*; do
            n=${f##*/}
            case $n in proc | sys | dev | tmp | run) continue ;; esac
            if [ -L "$f" ]; then
                b ln -s "$(b readlink "$f")" "$R/$n"
            elif [ -d "$f" ]; then
                b mkdir "$R/$n" && b mount --bind "$f" "$R/$n"
            fi
        done
        b mkdir $R/proc $R/sys $R/dev $R/tmp $R/run
        b mount -t tmpfs -o mode=755 run $R/run
        b mount -t tmpfs -o mode=1777 tmp $R/tmp
        b mkdir -p $R/run/wcfs/host
        b mount --move /host $R/run/wcfs/host # what the fresh folders hide
        b mount --move /proc $R/proc
        b mount --move /sys $R/sys
        b mount --move /dev $R/dev
        b cp /bin/busybox /init /etc/guest.conf /etc/program $R/run/wcfs/
        exec "$busybox" switch_root $R /run/wcfs/busybox sh /run/wcfs/init stage2
    fi
    etc=/etc
    b mount -t tmpfs -o mode=1777 tmp /tmp
    ;;
esac
R=''
b mkdir -p /dev/shm /dev/pts
b mount -t tmpfs -o mode=1777 shm /dev/shm
b mount -t devpts -o mode=620,ptmxmode=666 pts /dev/pts
b ln -s /proc/self/fd /dev/fd
for n in 0:stdin 1:stdout 2:stderr; do b ln -s "/proc/self/fd/${n%:*}" "/dev/${n#*:}"; done
mounts
[ "$HOSTROOT" = 1 ] && b mount -o remount,ro /

# soon COMMAND...: waits for it to succeed, for a while: devices are announced one after another
soon() {
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        "$@" && return
        b sleep 0.25
    done
    false
}
tty=/dev/hvc0
soon [ -c $tty ] || fail "no terminal for the program: the kernel needs CONFIG_VIRTIO_CONSOLE and CONFIG_VIRTIO_PCI"
exec 5<>$tty # the driver forgets the mode when nobody has it open
# shellcheck disable=SC2086
b stty -F $tty sane $TTYMODE
find_port() {
    for p in /sys/class/virtio-ports/*; do
        port=/dev/${p##*/}
        [ "$(b cat "$p/name" 2>/dev/null)" = "wcfs.$1" ] && [ -c "$port" ] && return
    done
    false
}
# stream NAME: makes the pipe for it. A pipe, and not the port itself, as a port can be opened only once:
# programs would fail at /dev/stderr.
stream() {
    soon find_port "$1" || fail "no port for $1: the kernel needs CONFIG_VIRTIO_CONSOLE and CONFIG_VIRTIO_PCI"
    b mkfifo "$etc/$1"
    if [ "$1" = stdin ]; then
        b cat <"$port" >"$etc/$1" 3<&- 5<&- &
    else
        b cat <"$etc/$1" >"$port" 3<&- 5<&- &
    fi
}
in=$tty out=$tty err=$tty
for s in $STREAMS; do
    stream "$s"
    case $s in
    stdin) in=$etc/$s ;;
    stdout) exec 6>"$etc/$s" && out=$etc/$s && err=$out ;;
    stderr) exec 7>"$etc/$s" && err=$etc/$s ;;
    esac
done
while read -r what rows cols <&3; do
    [ "$what" = size ] && b stty -F $tty rows "$rows" cols "$cols"
done >/dev/null 2>&1 &
say run
# in the foreground: a background job of a script would ignore Ctrl-C
# shellcheck disable=SC2094
# in a shell of its own: this one would say into the program's error stream which signal ended it
(exec "$busybox" setsid -c "$busybox" sh -c ". $etc/program" program <$tty >"$out" 2>"$err" 3<&- 5<&- 6<&- 7<&- 4<"$in")
status=$?
b sync
b stty -F $tty sane # waits until the output is gone
for s in $STREAMS; do
    case $s in # where nobody copies any more, because the program killed all there is, nobody waits
    stdout) b printf %s "$END" >&6 || say "lost $s" ;;
    stderr) b printf %s "$END" >&7 || say "lost $s" ;;
    esac
done
say "exit $status"
b sleep 86400 # the guest is ended from outside
