package httpsrv

import (
	"os/user"
	"strconv"
	"sync"
)

// users remembers names of users.
type users struct {
	mu    sync.Mutex
	names map[uint32]string // mu
}

// name returns the name of a user, or the number where there is none.
func (u *users) name(uid uint32) string {
	u.mu.Lock()
	name, ok := u.names[uid]
	u.mu.Unlock()
	if ok {
		return name
	}
	name = strconv.FormatUint(uint64(uid), 10)
	if x, err := user.LookupId(name); err == nil {
		name = x.Username
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.names == nil || len(u.names) > 1000 {
		u.names = map[uint32]string{}
	}
	u.names[uid] = name
	return name
}
