"""Runs several clients and passes lines between them and one console.

usage: mux.py COMMAND...    each COMMAND is a JSON list of words; VAR=VALUE words come first

In comes "N LINE", for client N; out goes "N LINE", from it, and "N" alone when it has ended.
"""
import json
import os
import subprocess
import sys
import threading

lock = threading.Lock()


def pump(n, out):
    for line in out:
        say('%d %s' % (n, line))
    say('%d\n' % n)


def say(line):
    with lock:
        sys.stdout.write(line)
        sys.stdout.flush()


def spawn(n, words):
    env = dict(os.environ)
    while '=' in words[0]:
        key, value = words.pop(0).split('=', 1)
        env[key] = value
    p = subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    threading.Thread(target=pump, args=(n, p.stdout), daemon=True).start()
    return p


def main():
    clients = [spawn(n, json.loads(arg)) for n, arg in enumerate(sys.argv[1:])]
    for line in sys.stdin:
        n, cmd = line.split(' ', 1)
        clients[int(n)].stdin.write(cmd)


main()
