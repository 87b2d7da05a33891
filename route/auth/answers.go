package auth

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"sluice/route/places"
)

const (
	keptAnswers = 4096
	// answersPerBlock is how many of them one address block has. Blocks with the same hash
	// share these.
	answersPerBlock = keptAnswers / 16
	maxKeptHead     = 2 << 10
	maxAnswerAge    = time.Hour
)

// Answers keep the answers of an authentication server that allow requests, for the time that the
// server says. They are found by some header fields of the question, and a new one takes the place
// of another one. They are safe for concurrent use.
type Answers struct {
	names []string // of the fields
	seed  maphash.Seed
	kept  [keptAnswers]atomic.Pointer[keptAnswer]
}

// keptAnswer does not change.
type keptAnswer struct {
	key [sha256.Size]byte
	end time.Time
	Answer
}

// NewAnswers returns Answers without any. names are the header fields of a question on which its
// answer depends.
func NewAnswers(names []string) *Answers {
	a := &Answers{seed: maphash.MakeSeed()}
	for _, name := range names {
		a.names = append(a.names, textproto.CanonicalMIMEHeaderKey(name))
	}
	return a
}

// Find returns the answer to a question with that header, about a request of client; nil: there is
// none. The caller must not change it. a may be nil.
func (a *Answers) Find(client places.Block, header http.Header) *Answer {
	if a == nil {
		return nil
	}
	key := a.key(header)
	if kept := a.slot(client, &key).Load(); kept != nil && kept.key == key && time.Now().Before(kept.end) {
		return &kept.Answer
	}
	return nil
}

// Keep keeps an answer for Find, if it allows the request and says for how long that counts. Its
// body is not kept. a may be nil.
func (a *Answers) Keep(client places.Block, header http.Header, answer *Answer) {
	if a == nil || !answer.Allows() || headBytes(answer.Header) > maxKeptHead {
		return
	}
	if age := a.lifetime(answer.Header); age > 0 {
		key := a.key(header)
		a.slot(client, &key).Store(&keptAnswer{key, time.Now().Add(age), Answer{Status: answer.Status, Header: answer.Header}})
	}
}

// key returns what an answer is kept by: no other values of the fields can be found that have the
// same.
func (a *Answers) key(header http.Header) (key [sha256.Size]byte) {
	var text []byte
	for _, name := range a.names {
		values := header[name]
		text = binary.AppendUvarint(text, uint64(len(values)))
		for _, value := range values {
			text = append(binary.AppendUvarint(text, uint64(len(value))), value...)
		}
	}
	return sha256.Sum256(text)
}

// slot returns the place of an answer, among those that client has.
func (a *Answers) slot(client places.Block, key *[sha256.Size]byte) *atomic.Pointer[keptAnswer] {
	n := uint64(binary.LittleEndian.Uint32(key[:]))
	if client == places.Many {
		return &a.kept[n%keptAnswers]
	}
	first := maphash.Comparable(a.seed, client) % (keptAnswers / answersPerBlock) * answersPerBlock
	return &a.kept[first+n%answersPerBlock]
}

// lifetime returns how long an answer with that header counts (RFC 9111, sections 4.2 and 5.2.2): 0
// if it sets a cookie, or depends on a field that is not among the names of a.
func (a *Answers) lifetime(header http.Header) (age time.Duration) {
	for name := range elements(header["Vary"]) {
		if !slices.Contains(a.names, textproto.CanonicalMIMEHeaderKey(name)) {
			return 0
		}
	}
	for directive := range elements(header["Cache-Control"]) {
		name, value, _ := strings.Cut(strings.ToLower(directive), "=")
		switch name {
		case "no-store", "no-cache":
			return 0
		case "max-age":
			age = seconds(value)
		}
	}
	if header["Set-Cookie"] != nil {
		return 0
	}
	if passed := header.Get("Age"); passed != "" {
		age -= seconds(passed)
	}
	return min(age, maxAnswerAge)
}

// seconds returns a number of seconds; 0: text is none.
func seconds(text string) time.Duration {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}

// elements yields the elements of field values that are lists (RFC 9110, section 5.6.1).
func elements(values []string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, value := range values {
			for element := range strings.SplitSeq(value, ",") {
				if element = strings.TrimSpace(element); element != "" && !yield(element) {
					return
				}
			}
		}
	}
}

// headBytes returns how long a header is.
func headBytes(header http.Header) (n int) {
	for name, values := range header {
		for _, value := range values {
			n += len(name) + len(value) + len(": \r\n")
		}
	}
	return n
}
