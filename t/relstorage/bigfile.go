package relstorage

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
)

// BigFile returns a command of bigfile.py. A storage is "file:" and a path, or "postgresql:" and a DSN.
func BigFile(ctx context.Context, args ...string) (*exec.Cmd, error) {
	py, err := PythonPath()
	if err != nil {
		return nil, err
	}
	root, err := Root()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, py, append([]string{filepath.Join(root, "t/relstorage/bigfile.py")}, args...)...)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(root, "t/py"), "PYTHONDONTWRITEBYTECODE=1")
	cmd.Stderr = os.Stderr
	return cmd, nil
}

// BigFileOutput runs bigfile.py and returns what it printed.
func BigFileOutput(ctx context.Context, args ...string) (string, error) {
	cmd, err := BigFile(ctx, args...)
	if err != nil {
		return "", err
	}
	out, err := cmd.Output()
	return string(out), err
}
