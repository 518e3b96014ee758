package contract

import (
	"os"
	"testing"

	"wcfs/t/served"
	"wcfs/t/wait"
)

// wcfsPath is the command under test; set by TestMain, then read only.
var wcfsPath string

func TestMain(m *testing.M) {
	if os.Getenv(clientEnv) != "" {
		clientMain()
		return
	}
	os.Exit(served.Main(m, func(wcfs string) { wcfsPath = wcfs }))
}

var patience = wait.Patience

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	served.Eventually(t, what, cond)
}
