// Package auth knows who may use a route: users with passwords, from a file or listed.
package auth

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tg123/go-htpasswd"
	"golang.org/x/crypto/bcrypt"

	"sluice/config/regular"
	"sluice/route/places"
)

const (
	maxFileBytes = 1 << 20
	// maxVerified is how many verified passwords are remembered.
	maxVerified = 4096
	// maxPasswordBytes is the length of the longest password that Apache's htpasswd takes. The
	// time of a hash of crypt grows with the length of the password.
	maxPasswordBytes = 255
	minRounds        = 1000 // of crypt
)

// hashBounds bound the time of a hash: whoever tries passwords takes it each time. A cost of bcrypt
// that is larger by one takes twice as long.
type hashBounds struct{ cost, rounds int }

var (
	// operators takes one to three seconds at most, others a quarter of one: registrants that
	// write users into tags share the turns with all.
	operators = hashBounds{cost: 14, rounds: 1_000_000}
	others    = hashBounds{cost: 12, rounds: 100_000}
)

// turns bounds the computations of slow hashes: half of the processors are for requests.
// Clients take turns, so that one that tries passwords does not hold back the others.
var turns = places.New(processors, processors)

var processors = max(1, runtime.GOMAXPROCS(0)/2)

// Users are users as in a file of Apache's htpasswd, with passwords hashed by bcrypt, MD5 (apr1),
// SHA-1, SSHA, or crypt with SHA-256 or SHA-512. They are safe for concurrent use.
type Users struct {
	path   string // empty: they are listed, and do not change
	loaded atomic.Pointer[users]
}

// users are the contents of a file.
type users struct {
	text  []byte
	file  *htpasswd.File
	first string // name of a user
	// hashes has the hash of each user; of a name in several lines, all of them.
	hashes map[string]string
	salt   [16]byte

	mu sync.Mutex
	// verified has the names of users, by the salted hashes of the names with the passwords that
	// are theirs; guarded by mu.
	verified map[[sha256.Size]byte]string
}

// OpenUsers reads the file.
func OpenUsers(path string) (*Users, error) {
	u := &Users{path: path}
	if _, err := u.Refresh(); err != nil {
		return nil, err
	}
	return u, nil
}

// ListedUsers returns users of which each line is one, as in a file. An error does not show them.
// The hashes of those that others than operators have written must take less time.
func ListedUsers(lines []string, byOthers bool) (*Users, error) {
	bounds := operators
	if byOthers {
		bounds = others
	}
	loaded, err := parseUsers([]byte(strings.Join(lines, "\n")), bounds)
	if err != nil {
		return nil, err
	}
	u := new(Users)
	u.loaded.Store(loaded)
	return u, nil
}

// Refresh reads the file again, and reports whether it has changed. After an error the
// users stay as they are.
func (u *Users) Refresh() (changed bool, err error) {
	if u.path == "" {
		return false, nil
	}
	text, err := regular.ReadUpTo(u.path, maxFileBytes)
	if err != nil {
		return false, fmt.Errorf("users: %w", err)
	}
	if before := u.loaded.Load(); before != nil && bytes.Equal(before.text, text) {
		return false, nil
	}
	loaded, err := parseUsers(text, operators)
	if err != nil {
		return false, fmt.Errorf("users: %s: %w", u.path, err)
	}
	if before := u.loaded.Load(); before != nil {
		loaded.restore(before)
	}
	u.loaded.Store(loaded)
	return true, nil
}

// restore takes over which passwords are verified, of the users whose hash is the same: with many
// of them, to verify all again because another one has come would take minutes.
func (u *users) restore(before *users) {
	before.mu.Lock()
	defer before.mu.Unlock()
	u.salt = before.salt
	for key, name := range before.verified {
		if hash, stays := u.hashes[name]; stays && hash == before.hashes[name] {
			u.verified[key] = name
		}
	}
}

// SavedUsers are the verified passwords of a file for another process.
type SavedUsers struct {
	Salt     []byte         `json:"salt"`
	Verified []VerifiedUser `json:"verified"`
}

// VerifiedUser is a user with a password that was verified.
type VerifiedUser struct {
	Name string `json:"name"`
	Hash string `json:"hash"` // in the file
	Key  []byte `json:"key"`  // salted hash of the name with the password
}

// Save returns the verified passwords.
func (u *Users) Save() SavedUsers {
	loaded := u.loaded.Load()
	loaded.mu.Lock()
	defer loaded.mu.Unlock()
	saved := SavedUsers{Salt: loaded.salt[:]}
	for key, name := range loaded.verified {
		saved.Verified = append(saved.Verified, VerifiedUser{name, loaded.hashes[name], key[:]})
	}
	return saved
}

// Restore takes over what another process has verified, of the users whose hash is the same. It is
// called before Verify.
func (u *Users) Restore(saved SavedUsers) {
	before := &users{hashes: make(map[string]string), verified: make(map[[sha256.Size]byte]string)}
	if len(saved.Salt) != len(before.salt) {
		return
	}
	copy(before.salt[:], saved.Salt)
	for _, v := range saved.Verified {
		if len(v.Key) == sha256.Size {
			before.hashes[v.Name], before.verified[[sha256.Size]byte(v.Key)] = v.Hash, v.Name
		}
	}
	u.loaded.Load().restore(before)
}

// hashes are the ways in which passwords may be hashed.
var hashes = []htpasswd.PasswdParser{htpasswd.AcceptMd5, htpasswd.AcceptSha, htpasswd.AcceptBcrypt, htpasswd.AcceptSsha, htpasswd.AcceptCryptSha}

// parseUsers reads lines "NAME:HASH". Passwords that are not hashed are an error, and so
// is a line that cannot be read: its user would be locked out.
func parseUsers(text []byte, bounds hashBounds) (*users, error) {
	u := &users{text: text, hashes: make(map[string]string), verified: make(map[[sha256.Size]byte]string)}
	rand.Read(u.salt[:]) // it never fails
	var lines strings.Builder
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, hash, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			return nil, fmt.Errorf("line %d: want NAME:HASH", number)
		}
		bad := false
		if _, err := htpasswd.NewFromReader(strings.NewReader(line+"\n"), hashes, func(error) { bad = true }); err != nil || bad {
			return nil, fmt.Errorf("line %d: want a password hashed by bcrypt, MD5 (apr1), SHA-1, SSHA, or crypt with SHA-256 or SHA-512", number)
		}
		if err := bounds.check(hash); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		u.first = name
		u.hashes[name] += hash + "\n"
		lines.WriteString(line + "\n")
	}
	if u.first == "" {
		return nil, errors.New("has no users") // perhaps it is being written
	}
	var err error
	u.file, err = htpasswd.NewFromReader(strings.NewReader(lines.String()), hashes, nil)
	return u, err
}

// check fails for a hash by bcrypt or crypt that takes too long, or that no password has.
func (b hashBounds) check(hash string) error {
	scheme, rest, _ := strings.Cut(strings.TrimPrefix(hash, "$"), "$")
	switch scheme {
	case "2a", "2b", "2x", "2y":
		cost, err := bcrypt.Cost([]byte(hash))
		if err != nil {
			return fmt.Errorf("want a hash of bcrypt: %w", err)
		}
		if cost > b.cost {
			return fmt.Errorf("the hash of bcrypt has the cost %d: want at most %d, as by htpasswd -B -C %d", cost, b.cost, b.cost)
		}
	case "5", "6":
		parts := strings.Split(rest, "$")
		if text, has := strings.CutPrefix(parts[0], "rounds="); has {
			if rounds, err := strconv.Atoi(text); err != nil || rounds < minRounds || rounds > b.rounds {
				return fmt.Errorf("the hash of crypt has rounds=%s: want from %d to %d", text, minRounds, b.rounds)
			}
			parts = parts[1:]
		}
		if len(parts) != 2 {
			return errors.New("want a hash of crypt: $6$SALT$HASH, or with $5$, and rounds=NUMBER$ before the salt if it has them")
		}
	}
	return nil
}

// ErrBusy means that a password was not verified in time, because too many others are.
var ErrBusy = errors.New("too many passwords are being verified")

// Verify reports whether the password is the user's. A password that was right
// before is verified at once. Any other takes the time of its hash, and waits for its turn
// until the context that waiting returns ends: then the error is ErrBusy. The time does
// not tell whether there is a user of that name. A password of more than 255 bytes is no
// user's: nothing is computed for it.
func (u *Users) Verify(client places.Block, name, password string, waiting func() (context.Context, context.CancelFunc)) (bool, error) {
	if len(password) > maxPasswordBytes {
		return false, nil
	}
	loaded := u.loaded.Load()
	key := loaded.key(name, password)
	if loaded.knows(key) {
		return true, nil
	}
	err := turns.Take(client, waiting)
	if err == nil {
		defer turns.Give(client)
	}
	switch { // a browser sends many requests at once
	case loaded.knows(key):
		return true, nil
	case err != nil:
		return false, ErrBusy
	}
	if !loaded.file.Exists(name) { // takes as long
		loaded.file.Match(loaded.first, password)
		return false, nil
	}
	if !loaded.file.Match(name, password) {
		return false, nil
	}
	loaded.remember(key, name)
	return true, nil
}

func (u *users) key(name, password string) [sha256.Size]byte {
	h := sha256.New()
	h.Write(u.salt[:])
	fmt.Fprintf(h, "%d:%s%s", len(name), name, password)
	return [sha256.Size]byte(h.Sum(nil))
}

func (u *users) knows(key [sha256.Size]byte) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, known := u.verified[key]
	return known
}

func (u *users) remember(key [sha256.Size]byte, name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.verified) >= maxVerified {
		clear(u.verified)
	}
	u.verified[key] = name
}
