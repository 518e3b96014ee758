package p9srv

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// abuses are the ways, by name.
func abuses() map[string]func(*abuser) {
	return map[string]func(*abuser){
		"random": (*abuser).random, "sizes": (*abuser).sizes, "types": (*abuser).types, "counts": (*abuser).counts,
		"msizes": (*abuser).msizes, "noversion": (*abuser).noVersion, "fids": (*abuser).fids, "unread": (*abuser).unread,
		"half": (*abuser).half, "loris": (*abuser).loris, "conns": (*abuser).conns, "reopen": (*abuser).reopen,
		"flushes": (*abuser).flushes, "fuzz": (*abuser).fuzz,
	}
}

// random sends random bytes, also after a good beginning.
func (a *abuser) random() {
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range 300 {
		c := a.dial()
		if i%2 == 0 {
			c.Close()
			c = a.session()
		}
		p := make([]byte, rng.IntN(4096))
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		c.Write(p)
		c.Close()
	}
}

// sizes sends headers with impossible sizes.
func (a *abuser) sizes() {
	for range 50 {
		for _, size := range []uint32{0, 1, 3, 6, 1<<20 + 1, 1 << 24, 1 << 31, 0xffffffff} {
			c := a.session()
			c.Write(frame{}.u32(size).u8(uint8(tRead)).u16(1))
			c.Read(make([]byte, 1)) // until the server closes it
			c.Close()
		}
	}
}

// types sends every type with every kind of body.
func (a *abuser) types() {
	c := a.session()
	var readers sync.WaitGroup
	readers.Go(func() { io.Copy(io.Discard, c) })
	rng := rand.New(rand.NewPCG(1, 3))
	for range 20 {
		for typ := range 256 {
			if msgType(typ) == tVersion {
				continue
			}
			f := newFrame(msgType(typ), uint16(rng.Uint32N(60000)))
			for range rng.IntN(40) {
				f = f.u8(uint8(rng.Uint32()))
			}
			a.send(c, f)
		}
	}
	c.Close()
	readers.Wait()
}

// counts reads with counts beyond msize and offsets beyond everything.
func (a *abuser) counts() {
	c := a.open(bigPath, 0)
	go io.Copy(io.Discard, c)
	for i := range 200 {
		for _, count := range []uint32{0, 1<<20 - 23, 1 << 20, 1 << 22, 1 << 31, 0xffffffff} {
			a.send(c, readFrame(uint16(1000+i), 1, uint64(i)<<56, count))
			time.Sleep(100 * time.Microsecond)
		}
	}
	c.Close()
}

// msizes negotiates all kinds of msize.
func (a *abuser) msizes() {
	c := a.dial()
	go io.Copy(io.Discard, c)
	for range 20 {
		for _, m := range []uint32{0, 1, 6, 7, 24, 4095, 4096, 4097, 1 << 20, 1 << 30, 0xffffffff} {
			a.send(c, newFrame(tVersion, noTag).u32(m).str(version9P))
		}
	}
	c.Close()
}

// noVersion sends other messages first.
func (a *abuser) noVersion() {
	for range 300 {
		c := a.dial()
		a.send(c, readFrame(1, 1, 0, 4096))
		c.Read(make([]byte, 100))
		c.Close()
	}
}

// fids makes more fids than are allowed, or tries to; a million with WCFS_SOAK.
func (a *abuser) fids() {
	total := uint32(80_000)
	if os.Getenv("WCFS_SOAK") != "" {
		total = 1_000_000
	}
	c := a.session()
	r := &rawClient{c: c}
	const n = 1000
	for i := range total / n {
		var all []frame
		for j := range uint32(n) {
			all = append(all, walkFrame(uint16(j), 0, 1+i*n+j))
		}
		go a.send(c, all...)
		for range n {
			if _, err := r.recvErr(); err != nil {
				fmt.Fprintln(os.Stderr, "abuser:", err)
				os.Exit(1)
			}
		}
	}
	c.Close()
}

// unread asks for 10^5 MiB and takes nothing of it. The server takes some requests of a connection, answers
// further ones with an error, and closes it when its replies have not been taken for too long. There are many
// at a time, who together want far more requests and bytes than all may have.
func (a *abuser) unread() {
	const total = 100_000
	var sent atomic.Int64
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			for sent.Load() < total {
				c := a.open(bigPath, 0)
				for tag := uint16(0); a.send(c, readFrame(tag, 1, 0, 1<<20-24)); tag++ {
					sent.Add(1)
				}
				c.Close()
			}
		})
	}
	wg.Wait()
}

// half sends half a message and waits.
func (a *abuser) half() {
	var all []net.Conn
	for range 100 {
		c := a.session()
		c.Write(walkFrame(1, 0, 1, "head").done(0)[:12])
		all = append(all, c)
	}
	for _, c := range all {
		c.Read(make([]byte, 1)) // until the server closes it
		c.Close()
	}
}

// loris sends a message byte by byte.
func (a *abuser) loris() {
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			c := a.session()
			defer c.Close()
			f := walkFrame(1, 0, 1, "head", "bigfile", "0000000000000002", "0000000000000002", "0000000000000002").done(0)
			for i := range f {
				if _, err := c.Write(f[i : i+1]); err != nil {
					return
				}
				time.Sleep(30 * time.Millisecond)
			}
		})
	}
	wg.Wait()
}

// conns opens ten thousand connections.
func (a *abuser) conns() {
	var lim syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim) == nil {
		lim.Cur = lim.Max
		syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim)
	}
	var all []net.Conn
	for range 10_000 {
		all = append(all, a.dial())
	}
	for _, c := range all {
		c.Close()
	}
}

// reopen opens what is open, reads what is clunked, and clunks again.
func (a *abuser) reopen() {
	c := a.session()
	go io.Copy(io.Discard, c)
	for range 2000 {
		a.send(c,
			walkFrame(1, 0, 1, splitPath(bigPath)...), openFrame(2, 1, 0), openFrame(3, 1, 0), readFrame(4, 1, 0, 100),
			newFrame(tClunk, 5).u32(1), readFrame(6, 1, 0, 100), newFrame(tClunk, 7).u32(1))
	}
	c.Close()
}

// flushes flushes everything at once.
func (a *abuser) flushes() {
	c := a.open("head/watch", 2)
	go io.Copy(io.Discard, c)
	for i := range 50_000 {
		tag := uint16(10 + i%20_000*3)
		if !a.send(c, readFrame(tag, 1, 0, 100), flushFrame(tag+1, tag), flushFrame(tag+2, tag+2)) {
			c = a.open("head/watch", 2) // a tag was used again too early
			go io.Copy(io.Discard, c)
		}
	}
	c.Close()
}

// fuzz sends 3*10^5 messages with right frames and everything else made up.
func (a *abuser) fuzz() {
	rng := rand.New(rand.NewPCG(7, 7))
	var c net.Conn
	paths := [][]string{splitPath(bigPath), splitPath(revPath), {"head", "watch"}, {"head"}, {}, {".."}, {"head", "at"}}
	for i := 0; i < 300_000; {
		if c == nil {
			c = a.session()
			go io.Copy(io.Discard, c)
		}
		var all []frame
		for range 100 {
			i++
			all = append(all, fuzzed(rng, uint16(i), paths))
		}
		if !a.send(c, all...) {
			c.Close()
			c = nil
		}
	}
	c.Close()
}

// fuzzed is a message that is right more often than not.
func fuzzed(rng *rand.Rand, tag uint16, paths [][]string) frame {
	fid := rng.Uint32N(20)
	types := []msgType{tStatfs, tLopen, tGetattr, tReaddir, tFsync, tAttach, tFlush, tWalk, tRead, tWrite, tClunk, tRemove, tSetattr, msgType(rng.Uint32())}
	f := newFrame(types[rng.IntN(len(types))], tag)
	switch msgType(f[4]) {
	case tVersion:
		f[4] = byte(tStatfs)
	case tAttach:
		f = f.u32(fid).u32(noFid).str("x").str([]string{"", "/head", "nope"}[rng.IntN(3)]).u32(0)
	case tWalk:
		f = walkFrame(tag, fid*rng.Uint32N(2), rng.Uint32N(20), paths[rng.IntN(len(paths))]...)
	case tLopen:
		f = f.u32(fid).u32(rng.Uint32N(4))
	case tRead, tReaddir:
		f = f.u32(fid).u64(rng.Uint64N(8 << 20)).u32(rng.Uint32N(8192))
	case tWrite:
		f = writeFrame(tag, fid, "1 x\n")
	case tFlush:
		f = f.u16(tag - uint16(rng.Uint32N(5)))
	default:
		f = f.u32(fid)
	}
	switch rng.IntN(20) {
	case 0:
		f = f[:7+rng.IntN(len(f)-6)]
	case 1:
		f[7%len(f)] ^= byte(rng.Uint32())
	case 2:
		f = f.u64(rng.Uint64())
	}
	return f
}
