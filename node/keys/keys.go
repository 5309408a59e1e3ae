// Package keys holds API keys: names, secrets and rights, a line each.
//
//	# NAME KEY [RIGHTS]
//	backend  6b1f0c…  *:*
//	reporter 9ac04d…  news-*:history,members
//
// Rights are as in package rights; without them a key may do everything. Two keys may have one name, so that one can take the other's
// place without a pause.
package keys

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"parley/node"
	"parley/node/rights"
)

// LeastKey is how many bytes a key has at least: it must not be guessed.
const LeastKey = 32

// A Ring is a list of keys. It does not change.
type Ring []key

type key struct {
	app node.App
	sum [sha256.Size]byte
}

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// Parse reads keys. Its errors name lines, and hold nothing of them.
func Parse(text string) (Ring, error) {
	var ring Ring
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, rest, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
		secret, spec, _ := strings.Cut(strings.TrimSpace(rest), " ")
		switch {
		case !validName.MatchString(name) || strings.HasPrefix(name, "guest-"):
			return nil, fmt.Errorf("line %d: a key's name is 1 to 64 letters, digits and _.-, and does not begin with guest-", i+1)
		case len(secret) < LeastKey:
			return nil, fmt.Errorf("line %d: the key has %d bytes: at least %d are needed, such as 'openssl rand -hex 32' makes", i+1, len(secret), LeastKey)
		}
		if spec = strings.TrimSpace(spec); spec == "" {
			spec = "*:*"
		}
		rooms, err := rights.ParseText(spec)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		may, err := rights.New(rooms)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		ring = append(ring, key{node.App{Name: name, Rights: may}, sha256.Sum256([]byte(secret))})
	}
	if len(ring) == 0 {
		return nil, errNone
	}
	return ring, nil
}

var errNone = errors.New("there are no keys: a line is NAME KEY [RIGHTS]")

// App implements node.Apps. It compares with every key, and hashes first: its time tells nothing of the keys.
func (r Ring) App(secret string) (node.App, bool) {
	sum := sha256.Sum256([]byte(secret))
	found := -1
	for i := range r {
		if subtle.ConstantTimeCompare(r[i].sum[:], sum[:]) == 1 {
			found = i
		}
	}
	if found < 0 {
		return node.App{}, false
	}
	return r[found].app, true
}

// A File is a ring that is read again when its file changes. While the file is broken, or empty as one that is being written, the keys
// before stay; whoever takes out the last key leaves a line such as "# none".
type File struct {
	path string
	log  *slog.Logger
	now  func() time.Time

	mu     sync.Mutex
	ring   Ring      // guarded by mu
	looked time.Time // guarded by mu
	text   string    // guarded by mu; what was read last
	bad    string    // guarded by mu; what was wrong then, if anything
}

// Open reads the file.
func Open(path string, log *slog.Logger) (*File, error) {
	f := &File{path: path, log: log, now: time.Now, looked: time.Now()}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f.text = string(text)
	if f.ring, err = Parse(f.text); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// lookEvery is how often the file is looked at, at most.
const lookEvery = time.Second

// App implements node.Apps.
func (f *File) App(secret string) (node.App, bool) {
	f.mu.Lock()
	if now := f.now(); now.Sub(f.looked) >= lookEvery {
		f.looked = now
		f.readLocked()
	}
	ring := f.ring
	f.mu.Unlock()
	return ring.App(secret)
}

func (f *File) readLocked() {
	text, err := os.ReadFile(f.path)
	var ring Ring
	if err == nil {
		f.bad = ""
		if string(text) == f.text {
			return
		}
		f.text = string(text)
		if ring, err = Parse(f.text); errors.Is(err, errNone) && strings.TrimSpace(f.text) != "" {
			err = nil
		}
	}
	if err != nil {
		if said := err.Error(); said != f.bad {
			f.bad = said
			f.log.Warn("read the API keys again: those before stay", "err", err)
		}
		return
	}
	f.ring = ring
	f.log.Info("the API keys were read again", "keys", len(ring))
}

// Both are the keys of two lists.
type Both [2]node.Apps

// App implements node.Apps.
func (b Both) App(secret string) (node.App, bool) {
	one, ok := b[0].App(secret)
	two, also := b[1].App(secret)
	if ok {
		return one, true
	}
	return two, also
}
