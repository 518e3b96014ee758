package qemu_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"wcfs/qemu"
)

// TestMain lets the test binary be the processes that some tests need.
func TestMain(m *testing.M) {
	switch os.Getenv("QEMU_TEST_HELPER") {
	case "start":
		os.Exit(helperStart())
	case "command":
		os.Exit(helperCommand())
	}
	os.Exit(m.Run())
}

// helperStart starts a guest, tells QEMU's process and waits to be killed.
func helperStart() int {
	k, err := qemu.FindKernel(context.Background(), "6.1", qemu.DefaultCache(), nil)
	if err == nil {
		var m *qemu.Machine
		if m, err = qemu.Start(context.Background(), qemu.Spec{Kernel: k, Program: []string{"/bin/sleep", "1000"}}); err == nil {
			fmt.Println(m.Pid())
			select {}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// helperCommand is `wcfs run` with the program in its arguments.
func helperCommand() int {
	var o qemu.RunOptions
	if s := os.Getenv("QEMU_TEST_OPTIONS"); s != "" {
		if err := json.Unmarshal([]byte(s), &o); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	o.Program = os.Args[1:]
	if o.Kernel == "" {
		o.Kernel = "6.12"
	}
	if o.Mem == 0 {
		o.Mem = 512
	}
	status, err := qemu.RunCommand(context.Background(), o, os.Stdin, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return status
}

// command is `wcfs run` with options over those of helperCommand, and a program.
func command(t *testing.T, o qemu.RunOptions, program ...string) *exec.Cmd {
	t.Helper()
	options, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], program...)
	cmd.Env = append(os.Environ(), "QEMU_TEST_HELPER=command", "QEMU_TEST_OPTIONS="+string(options))
	return cmd
}
