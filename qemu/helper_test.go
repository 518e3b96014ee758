package qemu_test

import (
	"context"
	"fmt"
	"os"
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
	k, err := qemu.FindKernel(context.Background(), "6.1", qemu.DefaultCache())
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
	o := qemu.RunOptions{Kernel: "6.12", Mem: 512, Program: os.Args[1:]}
	if s := os.Getenv("QEMU_TEST_KERNEL"); s != "" {
		o.Kernel = s
	}
	if s := os.Getenv("QEMU_TEST_SHARE"); s != "" {
		o.Share = []string{s}
	}
	status, err := qemu.RunCommand(context.Background(), o, os.Stdin, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return status
}
