package p9srv

import (
	"fmt"
	"testing"
)

// BenchmarkRead reads 64 KiB at a time through a client that does as little as can be.
func BenchmarkRead(b *testing.B) {
	for _, readers := range []int{1, 8} {
		b.Run(fmt.Sprint(readers), func(b *testing.B) {
			w := serve(b, nil)
			b.SetBytes(60 << 10)
			b.ReportAllocs()
			left := make(chan struct{}, b.N)
			for range b.N {
				left <- struct{}{}
			}
			close(left)
			done := make(chan struct{})
			for range readers {
				c := w.client()
				c.open(1, revPath, 0)
				go func() {
					defer func() { done <- struct{}{} }()
					f := readFrame(1, 1, 0, 60<<10).done(0)
					buf := make([]byte, 60<<10+11)
					for range left {
						c.c.Write(f)
						for n := 0; n < len(buf); {
							m, err := c.c.Read(buf[n:])
							if err != nil {
								b.Error(err)
								return
							}
							n += m
						}
					}
				}()
			}
			for range readers {
				<-done
			}
		})
	}
}

// BenchmarkMessages counts what the messages of a lookup cost: walk, attributes, open, clunk.
func BenchmarkMessages(b *testing.B) {
	w := serve(b, nil)
	c := w.client()
	b.ReportAllocs()
	for b.Loop() {
		c.ok(walkFrame(1, 0, 1, "head", "at"), tWalk+1)
		c.ok(newFrame(tGetattr, 1).u32(1).u64(0x7ff), tGetattr+1)
		c.ok(openFrame(1, 1, 0), tLopen+1)
		c.ok(readFrame(1, 1, 0, 16), tRead+1)
		c.ok(newFrame(tClunk, 1).u32(1), tClunk+1)
	}
}
