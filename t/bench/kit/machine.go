package kit

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine says what is measured on, for the head of a table.
func Machine() string {
	var u unix.Utsname
	var si unix.Sysinfo_t
	if unix.Uname(&u) != nil || unix.Sysinfo(&si) != nil {
		return "unknown machine"
	}
	model := "unknown processor"
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if k, v, _ := strings.Cut(line, ":"); strings.TrimSpace(k) == "model name" {
			model = strings.TrimSpace(v)
			break
		}
	}
	return fmt.Sprintf("%d × %s, %d GiB, Linux %s, %s, load %s", runtime.NumCPU(), model, (si.Totalram*uint64(si.Unit))>>30,
		unix.ByteSliceToString(u.Release[:]), runtime.Version(), Load())
}

// Load are the load averages: what else ran.
func Load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(text))
	return strings.Join(f[:min(3, len(f))], " ")
}
