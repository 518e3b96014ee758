package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// What must be noticed is noticed: failures, build failures, skips; and a package without tests is no skip.
func TestReport(t *testing.T) {
	var out bytes.Buffer
	r := &report{out: &out, output: map[key]*bytes.Buffer{}}
	r.read(strings.NewReader(`{"Action":"pass","Package":"a","Test":"TestA"}
{"Action":"output","Package":"a","Test":"TestB","Output":"b_test.go:1: wrong\n"}
{"Action":"fail","Package":"a","Test":"TestB"}
{"Action":"output","Package":"a","Test":"TestC","Output":"no qemu\n"}
{"Action":"skip","Package":"a","Test":"TestC"}
{"Action":"fail","Package":"a","Elapsed":1}
{"Action":"skip","Package":"empty"}
{"ImportPath":"b","Action":"build-output","Output":"b.go:1: undefined\n"}
{"ImportPath":"b","Action":"build-fail"}
{"Action":"output","Package":"c","Test":"TestD","Output":"fine, and not shown\n"}
{"Action":"pass","Package":"c","Test":"TestD"}
`))
	r.summary(time.Second)
	for _, want := range []string{"wrong", "no qemu", "undefined", "FAIL a TestB", "SKIP a TestC", "BUILD b", "2 passed, 2 failed, 1 skipped"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report does not say %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "not shown") {
		t.Errorf("the report shows what passed:\n%s", out.String())
	}
}
