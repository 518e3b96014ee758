package client_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"wcfs/t/served"
	"wcfs/zcore/client"
	"wcfs/zcore/zodb"
)

// goClient is the client in Go: this program, started again. Meanwhile garbage is collected all the time.
func goClient() {
	debug.SetPanicOnFault(true)
	go func() {
		for {
			runtime.GC()
			time.Sleep(100 * time.Microsecond)
		}
	}()
	var v *client.View
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		args := strings.Fields(lines.Text())
		answer, err := goDo(&v, args[0], args[1:])
		if err != nil {
			answer = "error " + strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		fmt.Println(answer)
	}
}

func goDo(v **client.View, cmd string, args []string) (answer string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), served.Patience)
	defer cancel()
	switch cmd {
	case "open", "base":
		if *v, err = goOpen(ctx, cmd, args); err != nil {
			return "", err
		}
		return goTold(*v), nil
	case "read":
		return goSums(*v, (*v).ReadAt)
	case "map":
		return goSums(*v, func(p []byte, off int64) (n int, err error) {
			defer func() {
				if r := recover(); r != nil {
					err = fmt.Errorf("sigbus: %v", r)
				}
			}()
			if err := (*v).Populate(off, int64(len(p))); err != nil {
				return 0, err
			}
			return copy(p, (*v).Bytes()[off:]), nil
		})
	case "resync":
		at, err := zodb.ParseTid(args[0])
		if err == nil {
			err = (*v).Resync(ctx, at)
		}
		return goTold(*v), err
	case "pins":
		return fmt.Sprintf("ok %d", len((*v).Pinned())), nil
	case "close":
		return "ok", (*v).Close()
	}
	return "", errors.New("unknown command")
}

func goOpen(ctx context.Context, cmd string, args []string) (*client.View, error) {
	oid, err1 := zodb.ParseOid(args[1])
	at, err2 := zodb.ParseTid(args[2])
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	connect := client.Connect
	if cmd == "base" {
		connect = client.ConnectBase
	}
	c, err := connect(args[0])
	if err != nil {
		return nil, err
	}
	return c.Open(ctx, oid, at, client.Options{Map: os.Getenv(envMap) != ""})
}

func goTold(v *client.View) string { return fmt.Sprintf("ok %s %d %d", v.At(), v.Size(), v.Blksize()) }

func goSums(v *client.View, read func(p []byte, off int64) (int, error)) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "ok %s %d", v.At(), v.Size())
	buf := make([]byte, v.Blksize())
	for off := int64(0); off < v.Size(); off += v.Blksize() {
		if n, err := read(buf, off); n < len(buf) || err != nil && err != io.EOF {
			return "", fmt.Errorf("%d bytes at %d: %w", n, off, err)
		}
		fmt.Fprintf(&b, " %08x", crc32.ChecksumIEEE(buf))
	}
	return b.String(), nil
}
