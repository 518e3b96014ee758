package neo_test

import (
	"bufio"
	"crypto/sha1"
	"io"
	"net"
	"slices"
	"sync"
	"testing"

	"wcfs/zcore/zodb"
)

// fake is a cluster of protocol 5 that shares no code with the driver, so that no error is in both: with one master, one storage and two partitions, all in memory. It does what
// the ported peer cannot: packs that are transactions, lists of objects, refusal of clients that want to write.
type fake struct {
	t       *testing.T
	masters net.Listener
	stores  net.Listener

	mu     sync.Mutex
	revs   map[zodb.Oid][]fakeRev // guarded by mu; ascending
	txns   []fakeTxn              // guarded by mu; ascending
	told   map[*fakeConn]bool     // guarded by mu; clients of the master
	backup bool                   // guarded by mu; it backs up another one: nothing is announced, nobody may write
	page   int                    // guarded by mu; how many objects at most are in a list
	asked  map[int]int            // guarded by mu; questions to the storage, by code
}

type fakeRev struct {
	tid, source zodb.Tid
	data        []byte // nil is a deletion
}

type fakeTxn struct {
	tid  zodb.Tid
	desc string
	oids []zodb.Oid
}

type fakeConn struct {
	nc net.Conn
	mu sync.Mutex // guards writing and n
	n  int        // messages of our own
}

const (
	fakeCluster = "fake"
	fakeNode    = -536870911 // C1
	fakeParts   = 2
	fakeStamp   = 17.25
)

func startFake(t *testing.T) *fake {
	f := &fake{t: t, revs: map[zodb.Oid][]fakeRev{}, told: map[*fakeConn]bool{}, page: 1000, asked: map[int]int{}}
	var wg sync.WaitGroup
	listen := func(handle func(*fakeConn, int, int, []any) bool) net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for {
				nc, err := l.Accept()
				if err != nil {
					return
				}
				wg.Go(func() { f.serve(nc, handle) })
			}
		})
		return l
	}
	f.masters, f.stores = listen(f.master), listen(f.storage)
	t.Cleanup(func() {
		f.masters.Close()
		f.stores.Close()
		wg.Wait() // clients are closed by then: their clean-up comes first
	})
	return f
}

func (f *fake) url() string { return "neo://" + fakeCluster + "@" + f.masters.Addr().String() }

// serve reads messages until the client goes or the handler wants it gone.
func (f *fake) serve(nc net.Conn, handle func(*fakeConn, int, int, []any) bool) {
	defer nc.Close()
	const greeting = "\x92\xa3NEO\x05"
	got := make([]byte, len(greeting))
	if _, err := io.WriteString(nc, greeting); err != nil {
		return
	}
	r := bufio.NewReader(nc)
	if _, err := io.ReadFull(r, got); err != nil || string(got) != greeting {
		return
	}
	c := &fakeConn{nc: nc}
	defer func() {
		f.mu.Lock()
		delete(f.told, c)
		f.mu.Unlock()
	}()
	for {
		v, err := unpack(r)
		if err != nil {
			return
		}
		m, ok := v.([]any)
		if !ok || len(m) != 3 {
			f.t.Errorf("a message of the driver is %v", v)
			return
		}
		number, isInt := m[0].(int)
		code, isCode := m[1].(int)
		fields, isList := m[2].([]any)
		if !isInt || !isCode || !isList {
			f.t.Errorf("a message of the driver is %v: it would end a real master", v)
			return
		}
		if !handle(c, number, code, fields) {
			return
		}
	}
}

func (c *fakeConn) write(number, code int, fields ...any) {
	if fields == nil {
		fields = []any{}
	}
	c.nc.Write(pack(nil, []any{number, code, fields}))
}

func (c *fakeConn) answer(number, code int, fields ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write(number, code|0x8000, fields...)
}

func (c *fakeConn) notify(code int, fields ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write(c.n, code, fields...)
	c.n++
}

func (f *fake) last() zodb.Tid {
	if len(f.txns) == 0 {
		return 0
	}
	return f.txns[len(f.txns)-1].tid
}

func (f *fake) master(c *fakeConn, number, code int, m []any) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch code {
	case 0x01:
		extra := m[5].([]any)
		readOnly := len(extra) == 2 && string(extra[0].([]byte)) == "read_only" && extra[1] == true
		if f.backup && !readOnly {
			c.answer(number, 0, 11, "the cluster backs up another one")
			return false
		}
		addr := f.stores.Addr().(*net.TCPAddr)
		c.answer(number, code, enum{4, 0}, -268435455, fakeNode)
		c.notify(0x06, 1.5, []any{
			[]any{enum{4, 2}, nil, fakeNode, enum{3, 2}, fakeStamp},
			[]any{enum{4, 1}, []any{addr.IP.String(), addr.Port}, 1, enum{3, 2}, 1.25},
		})
		rows := []any{}
		for range fakeParts {
			rows = append(rows, []any{[]any{1, enum{0, 1}}})
		}
		c.notify(0x0a, 1, 0, rows)
		f.told[c] = true
	case 0x02:
		c.answer(number, code)
	case 0x3c:
		c.answer(number, code, f.last())
	default:
		f.t.Errorf("the driver sends %#x to the master", code)
		return false
	}
	return true
}

func (f *fake) storage(c *fakeConn, number, code int, m []any) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked[code]++
	switch code {
	case 0x01:
		if m[1] != fakeNode || m[4] != fakeStamp {
			f.t.Errorf("the driver identifies to the storage as %v", m)
		}
		c.answer(number, code, enum{4, 1}, 1, fakeNode)
	case 0x02:
		c.answer(number, code)
	case 0x20:
		f.object(c, number, zodb.Oid(id(m[0])), m[1], m[2])
	case 0x22:
		f.transaction(c, number, zodb.Tid(id(m[0])))
	case 0x23:
		f.history(c, number, zodb.Oid(id(m[0])), m[1].(int), m[2].(int))
	case 0x30:
		tids := []any{}
		for _, x := range f.txns {
			if uint64(x.tid) >= id(m[0]) && uint64(x.tid) <= id(m[1]) && int(x.tid%fakeParts) == m[3] && len(tids) < m[2].(int) {
				tids = append(tids, x.tid)
			}
		}
		c.answer(number, code, tids)
	case 0x31:
		f.oids(c, number, m[0].(int), min(m[1].(int), f.page), zodb.Oid(id(m[2])), zodb.Tid(id(m[3])))
	default:
		f.t.Errorf("the driver sends %#x to a storage", code)
		return false
	}
	return true
}

func (f *fake) object(c *fakeConn, number int, oid zodb.Oid, at, before any) {
	revs, next := f.revs[oid], any(nil)
	for i := len(revs) - 1; i >= 0; i-- {
		r := revs[i]
		if at != nil && uint64(r.tid) == id(at) || at == nil && uint64(r.tid) < id(before) {
			var source, compression any
			sum := make([]byte, 20)
			if r.data != nil {
				s := sha1.Sum(r.data)
				sum, compression = s[:], 0
			}
			if r.source != 0 {
				source = r.source
			}
			c.answer(number, 0x20, oid, r.tid, next, compression, sum, append([]byte{}, r.data...), source)
			return
		}
		next = r.tid
	}
	if len(revs) == 0 {
		c.answer(number, 0, 5, oid.String())
		return
	}
	c.answer(number, 0, 3, oid.String())
}

func (f *fake) transaction(c *fakeConn, number int, tid zodb.Tid) {
	for _, x := range f.txns {
		if x.tid == tid {
			oids := []any{}
			for _, oid := range x.oids {
				oids = append(oids, oid)
			}
			c.answer(number, 0x22, tid, "user", x.desc, "", false, oids)
			return
		}
	}
	c.answer(number, 0, 4, tid.String()+" does not exist")
}

func (f *fake) history(c *fakeConn, number int, oid zodb.Oid, first, last int) {
	list := []any{}
	for i, r := range slices.Backward(f.revs[oid]) {
		if n := len(f.revs[oid]) - 1 - i; n >= first && n < last {
			list = append(list, []any{r.tid, len(r.data)})
		}
	}
	if len(f.revs[oid]) == 0 {
		c.answer(number, 0, 5, oid.String())
		return
	}
	c.answer(number, 0x23, oid, list)
}

// oids lists a partition. What is deleted is left out after it was counted, as real storages do.
func (f *fake) oids(c *fakeConn, number, part, length int, from zodb.Oid, at zodb.Tid) {
	var all []zodb.Oid
	for oid := range f.revs {
		if int(oid%fakeParts) == part && oid >= from {
			all = append(all, oid)
		}
	}
	slices.Sort(all)
	var next any
	if len(all) > length {
		next, all = all[length], all[:length]
	}
	list := []any{}
	for _, oid := range all {
		live := false
		for _, r := range f.revs[oid] {
			if r.tid <= at {
				live = r.data != nil
			}
		}
		if live {
			list = append(list, oid)
		}
	}
	c.answer(number, 0x31, next, list)
}
