package kit

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pollPause is how long a poller leaves the processor to others. A sleep of Go's would be a millisecond and more.
const pollPause = 50 * time.Microsecond

// Poll reads a small file such as head/at, by open, read and close only, again and again, until done says so.
func Poll(path string, done func(text string) (bool, error)) error {
	for {
		text, err := readSmall(path)
		if err != nil {
			return err
		}
		if ok, err := done(text); ok || err != nil {
			return err
		}
		pause := unix.NsecToTimespec(pollPause.Nanoseconds())
		_ = unix.Nanosleep(&pause, nil) // too short is no harm
	}
}

func readSmall(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var buf [64]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return "", &os.PathError{Op: "read", Path: path, Err: err}
	}
	return string(buf[:n]), nil
}
