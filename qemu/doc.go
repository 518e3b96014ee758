// Package qemu boots Linux guests: any program under any kernel, with a root taken from the host or
// with nothing but a small initramfs.
//
// It owns kernels (found, fetched from Debian packages, unpacked in a cache folder, never installed),
// the initramfs and the init in it, one QEMU process per guest, its console and its end. It knows
// nothing about wcfs: what a guest mounts and runs is the caller's.
//
//	k, err := qemu.FindKernel(ctx, "6.1", qemu.DefaultCache(), nil)
//	res, err := qemu.Run(ctx, qemu.Spec{Kernel: k, Program: []string{"/bin/true"}, HostRoot: true})
//
// A guest has some channels to the host, all sockets that QEMU inherits, so that nobody else can
// connect to them:
//   - the first serial port carries the kernel's console. It is kept for error messages, and a panic
//     is recognised there;
//   - a virtio console is the program's terminal;
//   - a virtio port for each of its standard files that is not that terminal;
//   - the second serial port is the control line. Guest to host: "ready", "at TEXT" (what it
//     does next), "run", "lost STREAM", "exit N", "fail TEXT"; host to guest: "size ROWS COLS".
//
// Invariants. QEMU never outlives Run, nor Machine.Close, nor the process that called them: it is
// killed by SIGKILL and waited for, since it does not react to anything else while it waits for a
// FUSE server below one of its shares. The exit status that Run returns came from the guest's init
// after the program ended and its output was drained; everything else is an error.
//
// Without KVM, or with one that does not work, guests are emulated (TCG). From start to end a guest
// then takes some seconds; most of it is the kernel's own start.
package qemu
