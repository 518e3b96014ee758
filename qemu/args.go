package qemu

import (
	"fmt"
	"strings"
)

// Descriptors QEMU inherits, in the order of exec.Cmd.ExtraFiles.
const (
	fdConsole = iota + 3 // kernel console
	fdTTY                // program's terminal
	fdControl            // control line
	fdQMP                // QEMU's own control
	fdStreams            // the first of Spec.streams
)

// args is QEMU's command line.
func (s *Spec) args(accel Accel, initrd string) []string {
	a := []string{
		"-nodefaults", "-no-user-config", "-no-reboot",
		"-machine", "q35", "-accel", accel.option(), "-cpu", "max",
		"-m", fmt.Sprintf("%dM", s.Memory), "-smp", fmt.Sprint(s.CPUs),
		"-kernel", s.image(), "-initrd", initrd, "-append", s.cmdline(),
	}
	if s.Display != "" {
		a = append(a, "-display", s.Display, "-vga", "std", "-usb", "-device", "usb-tablet")
	} else {
		a = append(a, "-display", "none")
	}
	chardev := func(id string, fd int) {
		a = append(a, "-chardev", fmt.Sprintf("socket,id=%s,fd=%d", id, fd))
	}
	chardev("con", fdConsole)
	chardev("tty", fdTTY)
	chardev("ctl", fdControl)
	chardev("qmp", fdQMP)
	a = append(a, "-mon", "chardev=qmp,mode=control", "-serial", "chardev:con", "-serial", "chardev:ctl",
		"-device", "virtio-serial-pci", "-device", "virtconsole,chardev=tty")
	for i, name := range s.streams() {
		chardev(name, fdStreams+i)
		a = append(a, "-device", fmt.Sprintf("virtserialport,chardev=%s,name=wcfs.%s", name, name))
	}
	shares := s.Shares
	if s.HostRoot {
		shares = append([]Share{{Tag: rootTag, Dir: "/", ReadOnly: true}}, shares...)
	}
	for i, sh := range shares {
		a = append(a, fsdev(sh, i)...)
	}
	if s.Net != NetNone {
		a = append(a, "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=")
	}
	if s.GDB != "" {
		a = append(a, "-gdb", s.GDB, "-S")
	}
	return append(a, s.QEMUArgs...)
}

// Devices of shares have PCI slots of their own, eight in each as its functions.
const (
	firstShareSlot = 8
	shareSlots     = 22
	maxShares      = 8*shareSlots - 1 // the root is one, too
)

// fsdev gives a folder as the i-th virtio 9p device. multidevs=remap: file systems mounted below it are
// seen, with inode numbers of their own.
func fsdev(sh Share, i int) []string {
	return []string{
		"-fsdev", fmt.Sprintf("local,id=%s,path=%s,security_model=none,multidevs=remap,readonly=%s", "fs-"+sh.Tag, quoteComma(sh.Dir), onOff(sh.ReadOnly)),
		"-device", fmt.Sprintf("virtio-9p-pci,fsdev=fs-%s,mount_tag=%s,multifunction=on,addr=%#x.%d", sh.Tag, sh.Tag, firstShareSlot+i/8, i%8),
	}
}

// image is the file to boot. Only a bzImage sets up the screen.
func (s *Spec) image() string {
	if s.Display != "" && s.Kernel.BzImage != "" {
		return s.Kernel.BzImage
	}
	return s.Kernel.Image
}

// cmdline is the kernel's. Most of it spares an emulated processor work that is of no use to a guest
// that lives for seconds.
func (s *Spec) cmdline() string {
	c := "console=ttyS0 panic=-1 rdinit=/init mitigations=off no_timer_check random.trust_cpu=on nokaslr"
	if s.Display != "" {
		c = "console=tty0 " + c // the last one is /dev/console
	}
	if s.Verbose {
		c += " earlyprintk=serial ignore_loglevel"
	} else if s.KernelLog == nil {
		c += " quiet"
	}
	return strings.TrimSpace(c + " " + s.Append)
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// quoteComma writes a value for one of QEMU's comma separated options.
func quoteComma(s string) string { return strings.ReplaceAll(s, ",", ",,") }
