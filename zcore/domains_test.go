package zcore

import (
	"testing"
	"time"
)

// Connections with a uname share a domain while one of them lives; anonymous connections never do.
func TestDomains(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	d := w.core.NewDomains()
	a, b := d.Get("guest7", "unix:0"), d.Get("guest7", "unix:0")
	if a != b || d.Get("guest7", "unix:1") == a || d.Get("guest8", "unix:0") == a || a == w.core.Host() {
		t.Error("domains are not told apart by uname and credential")
	}
	for _, name := range []string{"", Nobody} {
		first, second := d.Get(name, "unix:0"), d.Get(name, "unix:0")
		if first == second {
			t.Errorf("two connections of %q are one domain", name)
		}
	}
	d.Put(a)
	if d.Get("guest7", "unix:0") != a {
		t.Error("a domain was forgotten although a connection lives")
	}
	d.Put(a)
	d.Put(a)
	if d.Get("guest7", "unix:0") == a {
		t.Error("a domain without connections was not forgotten")
	}
}

// A connection that comes in the very moment a domain fails, before its name is free again, begins anew.
func TestDomainFailsWhileOneJoins(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	d := w.core.NewDomains()
	old := d.Get("guest7", "unix:0")
	d.mu.Lock() // so that failed cannot free the name
	told := make(chan struct{})
	go func() { old.Fail(); close(told) }()
	for !old.Failed() {
		time.Sleep(time.Millisecond)
	}
	joined := d.getLocked("guest7", "unix:0")
	d.mu.Unlock()
	<-told
	if joined == old || joined.Failed() {
		t.Error("a connection joined a domain that has failed")
	}
	d.Put(old)
	if next := d.Get("guest7", "unix:0"); next != joined {
		t.Error("the end of the old domain took the name from the new one")
	}
}
