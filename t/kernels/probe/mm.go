package probe

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

func mmRuns() map[string]run {
	return map[string]run{
		"mm-remap-faults": remapFaults, "mm-private-copy": privateCopy, "mm-punch-hole": punchHole, "mm-shared-alias": sharedAlias,
	}
}

func remapFaults(e *Env) (Verdict, error) {
	const pages, rounds, readers = 16, 2000, 3
	var files [2]*os.File
	for i := range files {
		f, err := plainFile(e.Dir, pages*page, byte(i+1))
		if err != nil {
			return Verdict{}, err
		}
		files[i] = f
	}
	m, err := mapFile(files[0], pages*page)
	if err != nil {
		return Verdict{}, err
	}
	var stop atomic.Bool
	var bad, seen atomic.Int64
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			debug.SetPanicOnFault(true)
			defer func() {
				if recover() != nil {
					bad.Add(1) // a fault: nothing was mapped there
				}
			}()
			for !stop.Load() {
				for p := range pages {
					if v := m.touch(p); v != 1 && v != 2 {
						bad.Add(1)
					}
					seen.Add(1)
				}
			}
		})
	}
	for i := range rounds {
		if e.Spoil {
			m.unmap()
		}
		if _, err := mapAt(m.addr, files[(i+1)%2], pages*page, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_FIXED); err != nil {
			return Verdict{}, err
		}
	}
	if e.Spoil { // on a busy machine no read may have come while nothing was mapped
		if _, err := mapAt(m.addr, files[0], pages*page, unix.PROT_NONE, unix.MAP_SHARED|unix.MAP_FIXED); err != nil {
			return Verdict{}, err
		}
		if err := until("a read that faults", func() bool { return bad.Load() > 0 }); err != nil {
			return Verdict{}, err
		}
	}
	if err := until("reads between mappings", func() bool { return seen.Load() > rounds || bad.Load() > 0 }); err != nil {
		return Verdict{}, err
	}
	stop.Store(true)
	wg.Wait()
	return answer(bad.Load() == 0, "%d mappings, %d reads, %d wrong", rounds, seen.Load(), bad.Load())
}

func privateCopy(e *Env) (Verdict, error) {
	f, err := plainFile(e.Dir, 2*page, 1)
	if err != nil {
		return Verdict{}, err
	}
	flags := unix.MAP_PRIVATE
	if e.Spoil {
		flags = unix.MAP_SHARED
	}
	m, err := mapAt(0, f, 2*page, unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return Verdict{}, err
	}
	m.b[0] = 9
	for p := range 2 {
		if _, err := f.WriteAt([]byte{5}, int64(p*page)); err != nil {
			return Verdict{}, err
		}
	}
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, 0); err != nil {
		return Verdict{}, err
	}
	own, other := m.touch(0), m.touch(1)
	return answer(own == 9 && other == 5 && b[0] == 5, "own page %d (wrote 9), other page %d, file %d (both changed to 5)", own, other, b[0])
}

// shmFile is a file in tmpfs.
func shmFile(n int) (*os.File, error) {
	f, err := os.CreateTemp("/dev/shm", "probe-*")
	if err != nil {
		return nil, err
	}
	os.Remove(f.Name())
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		return nil, fmt.Errorf("%s is no tmpfs (%v)", filepath.Dir(f.Name()), err)
	}
	return f, f.Truncate(int64(n))
}

func punchHole(e *Env) (Verdict, error) {
	const pages = 1024
	f, err := shmFile(pages * page)
	if err != nil {
		return Verdict{}, err
	}
	m, err := mapAt(0, f, pages*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return Verdict{}, err
	}
	for p := range pages {
		m.b[p*page] = 3
	}
	blocks := func() int64 {
		var st unix.Stat_t
		_ = unix.Fstat(int(f.Fd()), &st)
		return st.Blocks * 512 / page
	}
	before := blocks()
	if !e.Spoil {
		if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, page, (pages-2)*page); err != nil {
			return Verdict{}, err
		}
	}
	after := blocks()
	ends := m.touch(0) == 3 && m.touch(pages-1) == 3
	hole := m.touch(1) == 0 && m.touch(pages-2) == 0
	return answer(ends && hole && after == 2, "%d pages before, %d after; zeros in the hole: %v, the rest kept: %v", before, after, hole, ends)
}

func sharedAlias(e *Env) (Verdict, error) {
	flags := unix.MAP_SHARED | unix.MAP_ANON
	a, err := mapAt(0, nil, 2*page, unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return Verdict{}, err
	}
	var b mapping
	if e.Spoil {
		if b, err = mapAt(0, nil, 2*page, unix.PROT_READ|unix.PROT_WRITE, flags); err != nil {
			return Verdict{}, err
		}
	} else {
		addr, _, errno := unix.Syscall6(unix.SYS_MREMAP, a.addr, 0, 2*page, unix.MREMAP_MAYMOVE, 0, 0)
		if errno != 0 {
			return no("mremap: %v", errno)
		}
		b = mapping{addr, bytesAt(addr, 2*page)}
	}
	a.b[0], b.b[page] = 4, 6
	return answer(b.touch(0) == 4 && a.touch(1) == 6 && a.addr != b.addr, "written 4 and 6, read through the other %d and %d", b.touch(0), a.touch(1))
}
