package kernel

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestCheck: kernels as they might answer, and what is said of them.
func TestCheck(t *testing.T) {
	all := AsyncRead | MaxPages | ExplicitInvalData
	for _, c := range []struct {
		a    Answer
		want []string // in the error; nil: none
		not  string
	}{
		{Answer{all, 7, 45, "6.18.44-x"}, nil, ""},
		{Answer{all, 7, 31, "5.2.0"}, nil, ""},
		{Answer{all &^ MaxPages, 7, 31, "5.2.0"}, nil, ""}, // only slower
		{Answer{all, 7, 38, "what?"}, nil, ""},
		{Answer{all, 7, 38, ""}, nil, ""},
		{Answer{all &^ ExplicitInvalData, 7, 27, "4.19.0-amd64"}, []string{"FUSE_EXPLICIT_INVAL_DATA", "fuse-explicit-inval", "must not be dropped",
			"Linux 4.19.0-amd64 with FUSE protocol 7.27", "Linux 5.2 has all", "fuse-remap-in-fault"}, "--any-kernel"},
		{Answer{all &^ AsyncRead, 7, 45, "6.1.0"}, []string{"FUSE_ASYNC_READ", "waits for its pins"}, "--any-kernel"},
		{Answer{all, 7, 14, "6.1.0"}, []string{"NOTIFY_STORE, FUSE protocol 7.15, Linux 2.6 (for fuse-store-waits", "fuse-retrieve-unread"}, "EXPLICIT"},
		{Answer{all, 7, 31, "4.18.0-553.el8"}, []string{"without mmap_lock, Linux 5.1 (for fuse-remap-in-fault", "deadlock", "FOPEN_STREAM, Linux 5.2 (for fuse-stream", "--any-kernel"}, "mm-"},
	} {
		err := c.a.Check()
		if c.want == nil {
			if err != nil {
				t.Errorf("%+v: %v", c.a, err)
			}
			continue
		}
		if !errors.Is(err, ErrLacks) {
			t.Errorf("%+v: %v", c.a, err)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%+v: no %q in: %v", c.a, w, err)
			}
		}
		if c.not != "" && strings.Contains(err.Error(), c.not) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v", c.a, err)
		}
	}
}

// TestEach: whatever is needed and missing alone is refused, and by its name.
func TestEach(t *testing.T) {
	good := Answer{^Flag(0), 7, 45, "6.1"}
	for _, b := range All() {
		a := good
		switch {
		case b.Needs == (Needs{}) || b.Relax || b.Group() == V9FS:
			continue
		case b.Needs.Flag != 0:
			a.Flags &^= b.Needs.Flag
		case b.Needs.Minor != 0:
			a.Minor = b.Needs.Minor - 1
		default:
			a.Release = fmt.Sprintf("%d.%d", b.Needs.Linux.Major-1, 99)
		}
		if err := a.Check(); err == nil || !strings.Contains(err.Error(), b.Name) {
			t.Errorf("%s: %v", b.Name, err)
		}
	}
}

func TestParseRelease(t *testing.T) {
	for s, want := range map[string]Release{"6.1.0-56-amd64": {6, 1}, "5.15": {5, 15}, "6.12-rc1": {6, 12}, "2.6.78+": {2, 6}} {
		if r, ok := ParseRelease(s); !ok || r != want {
			t.Errorf("%q: %v %v", s, r, ok)
		}
	}
	for _, s := range []string{"", "6", "x.y", "6.", ".1"} {
		if r, ok := ParseRelease(s); ok {
			t.Errorf("%q: %v", s, r)
		}
	}
	if !(Release{4, 20}).Less(Release{5, 2}) || (Release{5, 10}).Less(Release{5, 2}) || (Release{5, 2}).Less(Release{5, 2}) {
		t.Error("releases are compared wrongly")
	}
}
