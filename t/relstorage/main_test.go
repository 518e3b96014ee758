package relstorage_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	rel "wcfs/t/relstorage"
	"wcfs/t/served"
)

// env is what the tests share: a server, a Python process and the command.
var env struct {
	*rel.Databases
	wcfs string
}

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "wcfs-rel-")
	if err == nil {
		defer os.RemoveAll(dir)
		env.wcfs, err = filepath.Join(dir, "wcfs"), served.Build(dir, false, "")
	}
	if err == nil {
		var derr error
		env.Databases, derr = rel.NewDatabases(ctx)
		err = errors.Join(err, derr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer env.Close()
	return m.Run()
}
