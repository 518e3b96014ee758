package filestorage_test

import (
	"bufio"
	"io"
	"os/exec"
	"strings"
	"testing"

	"wcfs/t/py"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/filestorage"
	"wcfs/zcore/zodb/storagetest"
)

// lastTransaction opens a file, as a program that goes on with it does, and says what its last transaction is. It keeps
// the file open until its input ends.
const lastTransaction = `
import sys, logging
logging.disable(100)
from ZODB.FileStorage import FileStorage
s = FileStorage(sys.argv[1])
print(s.lastTransaction().hex(), flush=True)
sys.stdin.read()
s.close()
`

// pythonOpens returns what Python tells, and how to end that process.
func pythonOpens(t *testing.T, path string) (zodb.Tid, func()) {
	t.Helper()
	cmd := exec.Command(py.Command(t, py.Py5, "").Path, "-c", lastTransaction, path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	tid, err := zodb.ParseTid(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return tid, func() {
		in.Close()
		io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// Case db/15, with Python: head is its lastTransaction, for a server that was there before the writer was killed, one that
// came while the rest of the commit was there, and ones that come after Python cut it off, and after it was started again.
func TestPythonLastTransaction(t *testing.T) {
	for name, cut := range map[string]func(txn []byte) []byte{
		"whole":    func(txn []byte) []byte { return txn },
		"voted":    func(txn []byte) []byte { txn[16] = 'c'; return txn },
		"half":     func(txn []byte) []byte { txn[16] = 'c'; return txn[:len(txn)-100] },
		"cut":      func(txn []byte) []byte { return txn[:len(txn)-100] },
		"header":   func(txn []byte) []byte { return txn[:23] },
		"nostatus": func(txn []byte) []byte { return txn[:15] },
		"undone":   func(txn []byte) []byte { txn[16] = 'u'; return txn },
	} {
		t.Run(name, func(t *testing.T) {
			b := newGoBackend(t)
			b.Commit(t, map[zodb.Oid][]byte{0: storagetest.Record(filled("1"))})
			before := open(t, b.path, filestorage.Options{})
			_, txn := bytesOf(t, b, map[zodb.Oid][]byte{0: storagetest.Record(filled("2"))})
			b.w.Close()
			appendTo(t, b.path, cut(txn))
			during := open(t, b.path, filestorage.Options{})
			for i, servers := range [][]*filestorage.Storage{{before, during}, {}} {
				last, end := pythonOpens(t, b.path)
				for _, s := range append(servers, open(t, b.path, filestorage.Options{}), open(t, b.path, filestorage.Options{NoIndex: true})) {
					t.Logf("start %d of Python: %s", i+1, last)
					waitHead(t, s, last)
				}
				end()
			}
		})
	}
}
