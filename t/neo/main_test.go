package neo_test

import (
	"os"
	"testing"

	"wcfs/t/served"
)

// wcfs is the command under test.
var wcfs string

func TestMain(m *testing.M) {
	os.Exit(served.Main(m, func(path string) { wcfs = path }))
}
