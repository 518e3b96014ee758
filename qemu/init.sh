#!/bin/busybox sh
# shellcheck shell=dash
# Init of the guest, run by busybox. Its configuration, /etc/guest.conf, sets:
#   HOSTROOT  1: the host's root is mounted (tag "wcfsroot") and becomes the root
#   OVERLAY   1: that root can be written, into memory, where the kernel has overlayfs
#   SCRATCH   how much, as tmpfs takes its size
#   MODULES   folder of the host with the kernel's modules, shown as /lib/modules/$RELEASE; or empty
#   NET       1: user mode network where there is a driver, 2: that must be there, 0: none
#   GUEST     host name
#   TTYMODE   arguments of stty for the program's terminal
#   OWNER     UID:GID of the program, who may open its terminal and pipes anew
#   STREAMS   those of stdin, stdout, stderr that are not the terminal: each is a pipe, copied from or
#             to the virtio port "wcfs.NAME"
#   END       what is written to the output pipes when the program has ended
# and defines the functions:
#   mounts    mounts what the caller asked for
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
    b hostname "$GUEST"
    if [ "$NET" != 0 ]; then
        if b ip link set eth0 up 2>/dev/null; then
            b ip addr add 10.0.2.15/24 dev eth0
            b ip route add default via 10.0.2.2
        elif [ "$NET" = 2 ]; then
            fail "no network card: the kernel needs CONFIG_VIRTIO_NET and CONFIG_VIRTIO_PCI"
        fi
    fi
    if [ "$HOSTROOT" = 1 ]; then
        b mkdir /host
        b mount -t 9p -o "ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000,access=any" wcfsroot /host ||
            fail "the host's root cannot be mounted: the kernel needs CONFIG_9P_FS, CONFIG_NET_9P_VIRTIO and CONFIG_VIRTIO_PCI"
        R=/root
        b mkdir /scratch
        if [ "$OVERLAY" = 1 ] && b grep -q overlay /proc/filesystems; then
            # shellcheck disable=SC2153 # the configuration sets it
            b mount -t tmpfs -o "mode=755,size=$SCRATCH" scratch /scratch
            b mkdir /scratch/up /scratch/work
            b mount -t overlay -o lowerdir=/host,upperdir=/scratch/up,workdir=/scratch/work root $R ||
                fail "the host's root cannot be made writable: give --ro"
        else
            [ "$OVERLAY" = 1 ] && echo "wcfs: the root is read-only: the kernel has no CONFIG_OVERLAY_FS" >/dev/console
            # A small tmpfs into which everything in the host's root is bound: so there may be mount points
            # that the host does not have.
            b mount -t tmpfs -o mode=755 root $R
            for f in /host/* /host/.[!.]*; do
                n=${f##*/}
                case $n in proc | sys | dev | tmp | run) continue ;; esac
                if [ -L "$f" ]; then
                    b ln -s "$(b readlink "$f")" "$R/$n"
                elif [ -d "$f" ]; then
                    b mkdir "$R/$n" && b mount --bind "$f" "$R/$n"
                elif [ -e "$f" ]; then
                    : >"$R/$n" && b mount --bind "$f" "$R/$n"
                fi
            done
        fi
        b mkdir -p $R/proc $R/sys $R/dev $R/tmp $R/run
        b mount -t tmpfs -o mode=755 run $R/run
        b mount -t tmpfs -o mode=1777 tmp $R/tmp
        b mkdir -p $R/run/wcfs/host $R/run/wcfs/scratch
        b mount --move /host $R/run/wcfs/host # what the fresh folders hide
        [ -d /scratch/up ] && b mount --move /scratch $R/run/wcfs/scratch
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
b mkdir -p /dev/shm /dev/pts
b mount -t tmpfs -o mode=1777 shm /dev/shm
b mount -t devpts -o mode=620,ptmxmode=666 pts /dev/pts
b ln -s /proc/self/fd /dev/fd
for n in 0:stdin 1:stdout 2:stderr; do b ln -s "/proc/self/fd/${n%:*}" "/dev/${n#*:}"; done
scratch=$etc/scratch
# show_folder DIR, show_file FILE: what a fresh folder hides; the folder can be written as the root can
show_folder() {
    b mkdir -p "$1" || return
    [ -d $scratch/up ] || { b mount --bind "/run/wcfs/host$1" "$1"; return; }
    up=$(b mktemp -d $scratch/XXXXXX) && b mkdir "$up/up" "$up/work" &&
        b mount -t overlay -o "lowerdir=/run/wcfs/host$1,upperdir=$up/up,workdir=$up/work" shown "$1"
}
show_file() {
    b mkdir -p "${1%/*}" && b touch "$1" && b mount --bind "/run/wcfs/host$1" "$1"
}
# show_modules: at the place where modprobe looks for them, if that can be made
show_modules() {
    at=/lib/modules/$RELEASE
    if [ ! -d "$at" ] && ! b mkdir -p "$at" 2>/dev/null; then
        [ -d /lib/modules ] || return
        b mount -t tmpfs -o mode=755 modules /lib/modules && b mkdir "$at" || return
    fi
    [ -e "$at/kernel" ] && return # the host's own
    b mount --bind "/run/wcfs/host$MODULES" "$at"
}
[ -n "$MODULES" ] && show_modules
mounts
[ "$HOSTROOT" = 1 ] && [ ! -d $scratch/up ] && b mount -o remount,ro /

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
b chown "$OWNER" $tty
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
    b mkfifo "$etc/$1" && b chown "$OWNER" "$etc/$1"
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
