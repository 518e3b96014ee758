package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Window is the display of a Spec that is a window on the user's desktop.
const Window = "window"

// ErrDisplay is of a display that cannot be had.
var ErrDisplay = errors.New("no display")

// resolveDisplay settles what QEMU's -display is told.
func resolveDisplay(ctx context.Context, want, qemu string) (string, error) {
	if want != Window {
		return want, nil
	}
	if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
		return "", fmt.Errorf("%w: neither DISPLAY nor WAYLAND_DISPLAY is set; start it on a desktop, or give another display, as --display vnc=127.0.0.1:0", ErrDisplay)
	}
	out, err := exec.CommandContext(ctx, qemu, "-display", "help").Output()
	if err != nil {
		return "", fmt.Errorf("%s -display help: %w", qemu, err)
	}
	kinds := strings.Fields(string(out))
	for _, k := range []string{"gtk", "sdl"} {
		if slices.Contains(kinds, k) {
			return k, nil
		}
	}
	return "", missing("a window for qemu-system-x86_64", "qemu-system-gui")
}
