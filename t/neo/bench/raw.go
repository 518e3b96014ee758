package bench

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	neotest "wcfs/t/neo"
	"wcfs/zcore/zodb"
)

// raw is a client of protocol 6 that throws answers away: what the storages can give at all.
type raw struct {
	conns []*rawConn // by partition
	all   []*rawConn
}

type rawConn struct {
	nc net.Conn
	br *bufio.Reader
	n  uint32
}

func dialRaw(addr string) (*rawConn, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &rawConn{nc: nc, br: bufio.NewReaderSize(nc, 1<<20)}
	if _, err = nc.Write([]byte{0, 0, 0, 6}); err == nil {
		_, err = c.br.Discard(4)
	}
	return c, err
}

func (c *rawConn) ask(code uint16, body []byte) error {
	b := binary.BigEndian.AppendUint32(nil, c.n)
	b = binary.BigEndian.AppendUint16(b, code)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	c.n++
	_, err := c.nc.Write(append(b, body...))
	return err
}

// next reads a message; keep says whether its body is wanted.
func (c *rawConn) next(keep bool) (code uint16, body []byte, err error) {
	head := make([]byte, 10)
	if _, err := io.ReadFull(c.br, head); err != nil {
		return 0, nil, err
	}
	code, size := binary.BigEndian.Uint16(head[4:]), int(binary.BigEndian.Uint32(head[6:]))
	if !keep {
		_, err = c.br.Discard(size)
		return code, nil, err
	}
	body = make([]byte, size)
	_, err = io.ReadFull(c.br, body)
	return code, body, err
}

// identify says that we are a client, with what the master said of us, if it has.
func (c *rawConn) identify(cluster string, node, stamp []byte) error {
	b := append([]byte{2}, node...)
	b = append(b, 0, 0, 0, 0) // no address
	b = binary.BigEndian.AppendUint32(b, uint32(len(cluster)))
	b = append(append(b, cluster...), stamp...)
	return c.ask(1, append(b, make([]byte, 8)...))
}

// newRaw connects to the master and all storages.
func newRaw(cl *neotest.Cluster) (*raw, error) {
	m, err := dialRaw(cl.Masters[0].Addr)
	if err != nil {
		return nil, err
	}
	r := &raw{all: []*rawConn{m}}
	none := []byte{255, 255, 255, 255, 255, 255, 255, 255}
	if err := m.identify(cl.Name, make([]byte, 4), none); err != nil {
		return nil, err
	}
	var node, stamp []byte
	byID := map[int32]*rawConn{}
	for {
		code, b, err := m.next(true)
		switch {
		case err != nil:
			return nil, err
		case code == 0x8000:
			return nil, fmt.Errorf("the master answers %q", b)
		case code == 0x06: // nodes, the first being us: type, address, id, state, stamp
			for b = b[12:]; len(b) > 0; {
				host := int(binary.BigEndian.Uint32(b[1:]))
				addr, at := "", 5
				if host > 0 {
					addr = net.JoinHostPort(string(b[5:5+host]), fmt.Sprint(binary.BigEndian.Uint16(b[5+host:])))
					at += host + 2
				}
				if node == nil {
					node, stamp = b[at:at+4], b[at+5:at+13]
				} else if b[0] == 1 {
					c, err := dialRaw(addr)
					if err != nil {
						return nil, err
					}
					r.all = append(r.all, c)
					byID[int32(binary.BigEndian.Uint32(b[at:]))] = c
					if err := c.identify(cl.Name, node, stamp); err != nil {
						return nil, err
					}
					if code, b, err := c.next(true); err != nil || code != 0x8001 {
						return nil, errors.Join(err, fmt.Errorf("the storage answers %#x %q", code, b))
					}
				}
				b = b[at+13:]
			}
		case code == 0x0a: // partitions, each a list of node and state; there is one copy
			for b = b[16:]; len(b) > 0; b = b[9:] {
				r.conns = append(r.conns, byID[int32(binary.BigEndian.Uint32(b[4:]))])
			}
			return r, nil
		}
	}
}

func (r *raw) close() {
	for _, c := range r.all {
		c.nc.Close()
	}
}

// read asks for all objects, as many at once of all storages together as ours.
func (r *raw) read(oids []zodb.Oid, at zodb.Tid) (time.Duration, error) {
	start := time.Now()
	mine := map[*rawConn][]zodb.Oid{}
	for _, oid := range oids {
		c := r.conns[uint64(oid)%uint64(len(r.conns))]
		mine[c] = append(mine[c], oid)
	}
	var wg sync.WaitGroup
	errs := make(chan error, len(mine))
	for c, list := range mine {
		wg.Go(func() { errs <- c.readAll(list, at, max(1, readers/len(mine))) })
	}
	wg.Wait()
	close(errs)
	var err error
	for e := range errs {
		err = errors.Join(err, e)
	}
	return time.Since(start), err
}

func (c *rawConn) readAll(oids []zodb.Oid, at zodb.Tid, window int) error {
	sent := 0
	for got := 0; got < len(oids); got++ {
		for ; sent < len(oids) && sent < got+window; sent++ {
			b := binary.BigEndian.AppendUint64(nil, uint64(oids[sent]))
			b = binary.BigEndian.AppendUint64(b, 1<<64-1)
			if err := c.ask(0x20, binary.BigEndian.AppendUint64(b, uint64(at)+1)); err != nil {
				return err
			}
		}
		code, _, err := c.next(false)
		if err == nil && code != 0x8020 {
			err = fmt.Errorf("the storage answers %#x", code)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
