package open_test

import (
	"strings"
	"testing"

	"wcfs/zcore/zodb/open"
)

func TestPasswords(t *testing.T) {
	for zurl, want := range map[string]bool{
		"file:///Data.fs": false, "postgresql://u@h/db": false, "zeo://h:1/?storage=1": false,
		"postgresql://u:p@h/db": true, "postgresql://h/db?password=p": true, "postgresql://h/db?sslpassword=p": true,
		"demo:(file:///a)/(postgresql://u:p@h/db)": true, "demo:(file:///a)/(file:///b)": false,
		"postgresql://u:%zz@h/db": true,
	} {
		if got := open.HasPassword(zurl); got != want {
			t.Errorf("open.HasPassword(%s) = %v", zurl, got)
		}
		if want && strings.Contains(open.Redact(zurl), "u:") {
			t.Errorf("open.Redact(%s) = %s", zurl, open.Redact(zurl))
		}
	}
}
