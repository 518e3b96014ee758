package qemu

import (
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// errCompressed: a kernel or module that cannot be uncompressed here; kernels boot as they are.
var errCompressed = errors.New("cannot be uncompressed here")

type compression struct{ magic, program, pkg string }

// compressions are told apart by the bytes they begin with; gzip needs no program.
func compressions() []compression {
	return []compression{
		{"\x1f\x8b\x08", "", ""},
		{"\xfd7zXZ\x00", "xz", "xz-utils"},
		{"\x28\xb5\x2f\xfd", "zstd", "zstd"},
	}
}

// uncompress gives what a gzip, xz or zstd stream at the start of b holds; what follows it is ignored.
func uncompress(ctx context.Context, b []byte) ([]byte, error) {
	for _, c := range compressions() {
		if !bytes.HasPrefix(b, []byte(c.magic)) {
			continue
		}
		if c.program == "" {
			z, err := gzip.NewReader(bytes.NewReader(b))
			if err != nil {
				return nil, err
			}
			z.Multistream(false)
			return io.ReadAll(z)
		}
		if _, err := exec.LookPath(c.program); err != nil {
			return nil, fmt.Errorf("%w: %w", errCompressed, missing(c.program, c.pkg))
		}
		cmd := exec.CommandContext(ctx, c.program, "-dc")
		cmd.Stdin = bytes.NewReader(b)
		var out, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &stderr
		if err := cmd.Run(); err != nil && out.Len() == 0 { // it complains about what follows the stream
			return nil, fmt.Errorf("%s -dc: %w: %s", c.program, err, strings.TrimSpace(stderr.String()))
		}
		return out.Bytes(), nil
	}
	return nil, errCompressed
}

// uncompressKernel takes the ELF kernel out of a bzImage. Booted through its PVH entry it saves what
// the guest would need to uncompress itself, which takes an emulated CPU seconds.
func uncompressKernel(ctx context.Context, image, vmlinux string) error {
	b, err := os.ReadFile(image)
	if err != nil {
		return err
	}
	out, err := unpackKernel(ctx, b, hasPVH)
	if err != nil {
		return err
	}
	return os.WriteFile(vmlinux, out, 0o644)
}

// unpackKernel finds the compressed stream in a bzImage that holds what is wanted.
func unpackKernel(ctx context.Context, image []byte, wanted func([]byte) bool) ([]byte, error) {
	for _, c := range compressions() {
		for from := 0; ; {
			i := bytes.Index(image[from:], []byte(c.magic))
			if i < 0 {
				break
			}
			from += i
			if out, err := uncompress(ctx, image[from:]); err == nil && wanted(out) {
				return out, nil
			}
			from += len(c.magic)
		}
	}
	return nil, errCompressed
}

// hasPVH tells whether an ELF kernel has the note that QEMU boots it by (XEN_ELFNOTE_PHYS32_ENTRY).
func hasPVH(b []byte) bool {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil || f.Type != elf.ET_EXEC || f.Machine != elf.EM_X86_64 {
		return false
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		notes, err := io.ReadAll(p.Open())
		for err == nil && len(notes) >= 12 {
			name, desc, typ := f.ByteOrder.Uint32(notes), f.ByteOrder.Uint32(notes[4:]), f.ByteOrder.Uint32(notes[8:])
			end := 12 + (uint64(name)+3)&^3
			if typ == 18 && uint64(len(notes)) >= end && string(notes[12:12+name]) == "Xen\x00" {
				return true
			}
			end += (uint64(desc) + 3) &^ 3
			if end > uint64(len(notes)) {
				break
			}
			notes = notes[end:]
		}
	}
	return false
}
