"""Makes servers that run on Python 3 of neoppod 1.12.0, which is for Python 2.

usage: port.py SDIST DIR    unpacks neoppod-1.12.0.tar.gz and writes the package neo and the commands to DIR

fissix turns syntax and library names into those of Python 3, py2.py stands for what Python 2 did with
strings and None, and edits.py has what is left. NEO_WIRE=5 makes all of it speak protocol 5.
"""
import os
import re
import shutil
import sys
import tarfile

from fissix.refactor import RefactoringTool, get_fixers_from_package

from edits import EDITS

HERE = os.path.dirname(os.path.abspath(__file__))
LEFT_OUT = ('tests', 'debug.py', 'lib/patch.py', 'scripts/runner.py', 'scripts/simple.py', 'scripts/neolog.py',
            'storage/database/importer.py', 'storage/database/mysqldb.py')
COMMANDS = 'neomaster', 'neostorage', 'neoadmin', 'neoctl', 'neomigrate'
# "next" renames attributes that are no iterators, "future" is for Python 3 as well.
FIXERS = [f for f in get_fixers_from_package('fissix.fixes')
          if f.rpartition('.fix_')[2] not in ('next', 'idioms', 'set_literal', 'ws_comma', 'buffer', 'apply')]
FROM_PY2 = re.compile(r'^from (?:struct|hashlib|binascii) import ', re.M)
IMPORT_PY2 = re.compile(r'^import (zlib|sqlite3)$', re.M)
USES_PY2 = re.compile(r'\b(?:raw|text|buffer|apply|getargspec|make_class|max|min|less)\(|^@apply', re.M)


def unpack(sdist, where):
    with tarfile.open(sdist) as tar:
        for m in tar:
            parts = m.name.split('/')
            path = '/'.join(parts[2:])
            if len(parts) < 3 or parts[1] != 'neo' or not m.isfile() or path.startswith(LEFT_OUT):
                continue
            to = os.path.join(where, path)
            os.makedirs(os.path.dirname(to), exist_ok=True)
            with open(to, 'wb') as f:
                shutil.copyfileobj(tar.extractfile(m), f)


def convert(path, source, tool):
    source = str(tool.refactor_string(source, path)) if source else source
    source = source.replace('.__func__', '').replace('weakref.ReferenceError', 'ReferenceError')
    source = re.sub(r'([\w.]+(?:\(".*?"\))?)\.next\(\)', r'next(\1)', source)
    source = re.sub(r'\bbytes\b', 'str', source)
    source = FROM_PY2.sub('from neo.lib.py2 import ', source)
    # logger.py writes its own files.
    if path != 'lib/logger.py':
        source = IMPORT_PY2.sub(r'from neo.lib.py2 import \1', source)
    for old, new in EDITS.pop(path, ()):
        if old not in source:
            sys.exit('port: %s has no %r' % (path, old))
        source = source.replace(old, new)
    names = sorted(set(n.strip('@(') for n in USES_PY2.findall(source)))
    if names:
        source = 'from neo.lib.py2 import %s\n%s' % (', '.join(names), source)
    return source


def main(sdist, where):
    neo = os.path.join(where, 'neo')
    unpack(sdist, neo)
    tool = RefactoringTool(FIXERS)
    for folder, _, files in os.walk(neo):
        for name in files:
            if not name.endswith('.py'):
                continue
            full = os.path.join(folder, name)
            with open(full) as f:
                source = f.read()
            with open(full, 'w') as f:
                f.write(convert(os.path.relpath(full, neo), source, tool))
    if EDITS:
        sys.exit('port: no files %s' % ', '.join(EDITS))
    for name in 'py2.py', 'wire5.py':
        shutil.copy(os.path.join(HERE, name), os.path.join(neo, 'lib', name))
    os.makedirs(os.path.join(where, 'bin'))
    for name in COMMANDS:
        path = os.path.join(where, 'bin', name)
        with open(path, 'w') as f:
            f.write('#!%s -Wignore\nimport os, sys\n'
                    'sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))\n'
                    'from neo.scripts.%s import main\nsys.exit(main())\n' % (sys.executable, name))
        os.chmod(path, 0o755)


if __name__ == '__main__':
    main(*sys.argv[1:])
