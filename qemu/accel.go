package qemu

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Accel is what runs a guest's instructions.
type Accel string

// Accelerators.
const (
	Auto Accel = ""    // KVM where it works, else TCG
	KVM  Accel = "kvm" // the processor
	TCG  Accel = "tcg" // emulation
)

// ParseAccel reads the name of an accelerator.
func ParseAccel(s string) (Accel, error) {
	switch s {
	case "", "auto":
		return Auto, nil
	case "kvm", "tcg":
		return Accel(s), nil
	}
	return "", fmt.Errorf("accelerator %q: want kvm, tcg or auto", s)
}

func (a Accel) option() string {
	if a == KVM {
		return "kvm"
	}
	return "tcg,thread=multi,tb-size=256"
}

// cpus is how many processors a guest gets by default. More of them slow an emulated kernel's start down, and
// with QEMU 7.2 on a busy host one in some starts panics as the kernel patches code that another processor is in.
func (a Accel) cpus() int {
	if a == KVM {
		return min(2, runtime.NumCPU())
	}
	return 1
}

// probeTime is what a guest under a KVM that works takes a fraction of.
const probeTime = 6 * time.Second

// ProbeKVM tells whether KVM works, by booting a kernel: /dev/kvm may exist, and guests fault, hang
// or crawl nevertheless, also after their first instructions ran well.
func ProbeKVM(ctx context.Context, k Kernel) error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	f.Close()
	_, err = Run(ctx, Spec{Kernel: k, Program: []string{"/bin/true"}, Accel: KVM, CPUs: 1, BootTimeout: probeTime, Timeout: probeTime})
	return err
}

// chooseAccel settles Auto. The result of the probe is kept in cache until the machine starts anew, as finding
// a KVM that hangs takes seconds.
func chooseAccel(ctx context.Context, want Accel, k Kernel, qemu string) Accel {
	if want != Auto {
		return want
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	key := strings.TrimSpace(string(boot)) + " " + qemu
	note := filepath.Join(DefaultCache(), "kvm")
	if b, err := os.ReadFile(note); err == nil {
		if found, ok := strings.CutPrefix(string(b), key+" "); ok && (found == string(KVM) || found == string(TCG)) {
			return Accel(found)
		}
	}
	found := TCG
	if ProbeKVM(ctx, k) == nil {
		found = KVM
	}
	if ctx.Err() == nil && os.MkdirAll(filepath.Dir(note), 0o755) == nil {
		_ = os.WriteFile(note, []byte(key+" "+string(found)), 0o644) // only saves time
	}
	return found
}
