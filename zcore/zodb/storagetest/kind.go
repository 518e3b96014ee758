package storagetest

import (
	"testing"

	"wcfs/zcore/zodb"
)

// WantKind checks the kind of an error that a driver made: a driver's test calls it for every failure that
// the driver knows of. No error fails it too.
func WantKind(t testing.TB, what string, err error, want zodb.Kind) {
	t.Helper()
	if err == nil || zodb.KindOf(err) != want {
		t.Errorf("%s: error %v is of kind %s; want %s", what, err, zodb.KindOf(err), want)
	}
}
