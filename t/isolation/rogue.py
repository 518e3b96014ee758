"""A client that does not do what it should, or does it slowly, or far too often.

usage: rogue.py MODE MNT OID AT

frozen: is stopped with a pin to be acknowledged.   silent: reads no pin.
slow:   acknowledges each pin late; says how many.  flood:  asks for as much as it gets, and leaves.

It prints a line when its watch is set up, and ends when its input does.
"""

import errno
import os
import signal
import sys
import threading
import time

MODE, MNT, OID, AT = sys.argv[1:]
HEAD = MNT + '/head/'


def watch(at=AT, oid=OID):
    fd = os.open(HEAD + 'watch', os.O_RDWR)
    os.write(fd, b'1 watch %s @%s\n' % (oid.encode(), at.encode()))
    return fd


def lines(fd):
    rest = b''
    while True:
        more = os.read(fd, 4096)
        if not more:
            return
        *ready, rest = (rest + more).split(b'\n')
        for line in ready:
            if line:
                yield line.decode()


class Client:
    """A watch, and a thread that acknowledges its pins."""

    def __init__(self, pause):
        self.fd, self.pause = watch(), pause
        self.pins, self.told, self.mute, self.ready = 0, '', False, threading.Event()
        threading.Thread(target=self.acknowledge, daemon=True).start()

    def acknowledge(self):
        for line in lines(self.fd):
            stream, msg = line.split(' ', 1)
            if stream in '01':
                self.told = line
                self.ready.set()
            elif not self.mute:
                time.sleep(self.pause)
                os.write(self.fd, b'%s ack\n' % stream.encode())
                self.pins += 1


def flood():
    """What is too much is refused, by a line or by EMFILE, and nothing else comes of it."""
    fds, refused = [], 0
    for _ in range(1500):
        try:
            fds.append(os.open(HEAD + 'watch', os.O_RDWR))
        except OSError as e:
            if e.errno != errno.EMFILE:
                raise
            refused += 1
            break
    ahead, unknown = 'f' * 16, '%016x' % (1 << 60)
    text = ''.join('%d watch %s @%s\n' % (2 * i + 3, OID if i % 2 else unknown, ahead if i % 3 else AT) for i in range(5000))
    for i in range(0, len(text), 4000):
        os.write(fds[0], text[i:i + 4000].encode())
    os.write(fds[1], b'this is no frame\n')
    os.write(fds[2], b'1 watch nonsense\n')
    for fd in fds:
        os.close(fd)
    print('refused %d' % refused, flush=True)


def main():
    if MODE == 'flood':
        flood()
        sys.stdin.read()
        return
    c = Client(0.02 if MODE == 'slow' else 0)
    c.ready.wait()
    if c.told != '1 ok':
        sys.exit('rogue.py: ' + c.told)
    c.mute = MODE in ('frozen', 'silent')
    print('ready', flush=True)
    if MODE == 'frozen':
        os.kill(os.getpid(), signal.SIGSTOP)
    sys.stdin.read()
    os.write(c.fd, b'3 bye\n')
    print('pins %d %s' % (c.pins, c.told), flush=True)


main()
