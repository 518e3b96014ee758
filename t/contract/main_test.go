package contract

import (
	"os"
	"testing"

	"wcfs/t/served"
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

const patience = served.Patience

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	served.Eventually(t, what, cond)
}
