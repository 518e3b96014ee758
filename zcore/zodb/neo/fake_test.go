package neo

import (
	"bufio"
	"context"
	"crypto/sha1"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"wcfs/zcore/zodb"
)

// fake is a cluster in this process, of one master and storages that each have everything. It does what the real
// ones do that tests can run, and what they cannot: damage, pack in protocol 5, list objects, break the protocol.
type fake struct {
	t     testing.TB
	gen   generation
	nodes []*fakeNode // the master, then S1, S2, ...

	// hook, if not nil, may answer a request of a client instead: with what it returns, if that is not nil.
	hook func(n *fakeNode, c *fakeConn, m message) message

	// loads, if not nil, may see to the answer to a load, and tells whether it has.
	loads func(c *fakeConn, id uint32, q *askObject) bool

	mu    sync.Mutex
	ptid  uint64
	tids  []zodb.Tid
	txns  map[zodb.Tid][]zodb.Oid // what each is about
	objs  map[zodb.Oid][]fakeRev  // ascending
	asked []message               // all requests
	conns map[*fakeConn]bool      // identified to the master
}

type fakeRev struct {
	tid  zodb.Tid
	data []byte // nil: deleted
}

type fakeNode struct {
	f    *fake
	id   int32
	addr address
	l    net.Listener
}

type fakeConn struct {
	net.Conn
	gen    generation
	mu     sync.Mutex // held while a message is written
	nextID uint32     // of our own messages; guarded by mu
}

const fakeParts = 3

func newFake(t testing.TB, gen generation, storages int) *fake {
	f := &fake{t: t, gen: gen, ptid: 1, txns: map[zodb.Tid][]zodb.Oid{}, objs: map[zodb.Oid][]fakeRev{}, conns: map[*fakeConn]bool{}}
	for i := range storages + 1 {
		f.addNode(int32(i))
	}
	f.nodes[0].id = -268435455
	return f
}

func (f *fake) addNode(id int32) *fakeNode {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	p, _ := strconv.Atoi(port)
	n := &fakeNode{f: f, id: id, addr: address{"127.0.0.1", uint16(p)}, l: l}
	f.nodes = append(f.nodes, n)
	f.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go n.serve(&fakeConn{Conn: nc, gen: f.gen})
		}
	}()
	return n
}

func (f *fake) url() string { return "neo://fake@" + f.nodes[0].addr.String() }

// open opens the cluster; what the driver logs goes to the test's log.
func (f *fake) open(change ...func(*Options)) *Storage {
	f.t.Helper()
	opt := Options{Timeout: 20 * time.Second, MaxBackoff: 50 * time.Millisecond, Log: slog.New(slog.NewTextHandler(fakeLog{f.t}, nil))}
	for _, c := range change {
		c(&opt)
	}
	s, err := Open(context.Background(), f.url(), opt)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { s.Close() })
	return s
}

type fakeLog struct{ t testing.TB }

func (w fakeLog) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

// commit makes a transaction and tells clients of it, as the protocol does: without what is deleted in protocol 5.
func (f *fake) commit(objs map[zodb.Oid][]byte, checked ...zodb.Oid) zodb.Tid {
	tid := f.store(objs, checked...)
	var told []zodb.Oid
	for oid, data := range objs {
		if data != nil || f.gen == structs {
			told = append(told, oid)
		}
	}
	f.tell(&invalidateObjects{tid, told})
	return tid
}

// store makes a transaction and tells nobody.
func (f *fake) store(objs map[zodb.Oid][]byte, checked ...zodb.Oid) zodb.Tid {
	f.mu.Lock()
	defer f.mu.Unlock()
	tid := zodb.Tid(0x040d000000000000)
	if n := len(f.tids); n > 0 {
		tid = f.tids[n-1]
	}
	tid += 7
	f.tids = append(f.tids, tid)
	f.txns[tid] = slices.Clone(checked)
	for oid, data := range objs {
		f.txns[tid] = append(f.txns[tid], oid)
		f.objs[oid] = append(f.objs[oid], fakeRev{tid, data})
	}
	return tid
}

// tell sends a message of the master to all clients.
func (f *fake) tell(m message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.notify(m)
	}
}

// cut ends all connections to the master.
func (f *fake) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.Close()
	}
}

func (c *fakeConn) send(id uint32, m message) {
	b, err := c.gen.encode(id, m)
	if err != nil {
		panic(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Write(b)
}

// notify sends what is no answer: it has a number of our own, which clients have used as well.
func (c *fakeConn) notify(m message) {
	c.mu.Lock()
	id := c.nextID
	c.nextID++
	c.mu.Unlock()
	c.send(id, m)
}

func (n *fakeNode) serve(c *fakeConn) {
	defer c.Close()
	c.Write(c.gen.hello())
	r := bufio.NewReader(c)
	if g, err := readHello(r); isRefusal(err) || err == nil && g != c.gen {
		n.f.t.Errorf("a client greets with protocol %d, %v", g, err)
	} else if err != nil {
		return // it has gone
	}
	for {
		e, err := c.gen.readMessage(r, 1<<20)
		if err != nil {
			break
		}
		if e.msg == nil {
			n.f.t.Errorf("a client sends %#x", e.code)
			return
		}
		n.f.mu.Lock()
		n.f.asked = append(n.f.asked, e.msg)
		n.f.mu.Unlock()
		if q, ok := e.msg.(*askObject); ok && n.f.loads != nil && n.f.loads(c, e.id, q) {
			continue
		}
		var a message
		if n.f.hook != nil {
			a = n.f.hook(n, c, e.msg)
		}
		if a == nil {
			a = n.answer(c, e.msg)
		}
		if a != nil {
			c.send(e.id, a)
		}
		if req, ok := e.msg.(*requestIdentification); ok && n.id < 0 {
			if _, ok := a.(*acceptIdentification); ok {
				n.welcome(c, req)
			}
		}
	}
	n.f.mu.Lock()
	delete(n.f.conns, c)
	n.f.mu.Unlock()
}

// welcome tells a client what the cluster is.
func (n *fakeNode) welcome(c *fakeConn, _ *requestIdentification) {
	f := n.f
	nodes := []nodeInfo{{typeClient, address{}, -536870911, nodeRunning, 4611686018427387904}}
	for _, s := range f.nodes {
		kind := int8(typeStorage)
		if s.id < 0 {
			kind = typeMaster
		}
		nodes = append(nodes, nodeInfo{kind, s.addr, s.id, nodeRunning, 4611686018427387905})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c.notify(&nodeInformation{noStamp, nodes})
	c.notify(f.table())
	f.conns[c] = true
}

// table must be called with mu held.
func (f *fake) table() *partitionTable {
	var row []cellInfo
	for _, s := range f.nodes[1:] {
		row = append(row, cellInfo{s.id, cellUpToDate})
	}
	return &partitionTable{f.ptid, 0, slices.Repeat([][]cellInfo{row}, fakeParts)}
}

// answer is what a sound cluster answers.
func (n *fakeNode) answer(c *fakeConn, m message) message {
	f := n.f
	f.mu.Lock()
	defer f.mu.Unlock()
	switch m := m.(type) {
	case *requestIdentification:
		kind := int8(typeStorage)
		if n.id < 0 {
			kind = typeMaster
		} else if m.node != -536870911 || m.stamp != 4611686018427387904 {
			return &answerError{codeNotReady, []byte("unknown by master")}
		}
		return &acceptIdentification{kind, n.id, -536870911}
	case *ping:
		return &pong{}
	case *askLastTransaction:
		if len(f.tids) == 0 {
			return &answerLastTransaction{}
		}
		return &answerLastTransaction{f.tids[len(f.tids)-1]}
	case *askObject:
		return f.object(m)
	case *askTIDsFrom:
		a := &answerTIDsFrom{}
		for _, t := range f.tids {
			if t >= m.from && t <= m.to && uint32(t%fakeParts) == m.partition && len(a.tids) < int(m.length) {
				a.tids = append(a.tids, t)
			}
		}
		return a
	case *askTransaction:
		if oids, ok := f.txns[m.tid]; ok {
			return &answerTransaction{tid: m.tid, oids: oids}
		}
		return &answerError{codeTIDNotFound, []byte(m.tid.String() + " does not exist")}
	case *askHistory:
		return f.history(m)
	case *askOIDsFrom:
		return f.list(m)
	case *pong:
		return nil
	}
	return &answerError{codeProtocolError, fmt.Appendf(nil, "%T", m)}
}

func (f *fake) object(m *askObject) message {
	revs := f.objs[m.oid]
	if len(revs) == 0 {
		return &answerError{codeOIDDoesNotExist, []byte(m.oid.String())}
	}
	for i, r := range slices.Backward(revs) {
		if m.at != none && r.tid != m.at || m.at == none && m.before != none && r.tid >= m.before {
			continue
		}
		a := &answerObject{oid: m.oid, serial: r.tid, next: none, compression: -1, dataSerial: none}
		if i+1 < len(revs) {
			a.next = revs[i+1].tid
		}
		if r.data != nil {
			a.compression, a.data, a.checksum = 0, r.data, sha1.Sum(r.data)
		}
		if f.gen == structs {
			a.compression = 0
		}
		return a
	}
	return &answerError{codeOIDNotFound, []byte(m.oid.String())}
}

func (f *fake) history(m *askHistory) message {
	a := &answerHistory{oid: m.oid}
	revs := slices.Clone(f.objs[m.oid])
	slices.Reverse(revs)
	for i := m.first; i < min(m.last, uint64(len(revs))); i++ {
		a.revs = append(a.revs, revision{revs[i].tid, uint32(len(revs[i].data))})
	}
	if len(a.revs) == 0 {
		return &answerError{codeOIDNotFound, nil}
	}
	return a
}

// list counts deleted objects and leaves them out, so that a page may be empty.
func (f *fake) list(m *askOIDsFrom) message {
	var all []zodb.Oid
	for oid, revs := range f.objs {
		if uint32(oid%fakeParts) == m.partition && oid >= m.from && revs[0].tid <= m.at {
			all = append(all, oid)
		}
	}
	slices.Sort(all)
	a := &answerOIDsFrom{next: none}
	if len(all) > int(m.length) {
		all = all[:m.length]
	}
	if len(all) == int(m.length) {
		a.next = all[len(all)-1] + 1
	}
	for _, oid := range all {
		revs := f.objs[oid]
		i := len(revs) - 1
		for revs[i].tid > m.at {
			i--
		}
		if revs[i].data != nil {
			a.oids = append(a.oids, oid)
		}
	}
	return a
}
