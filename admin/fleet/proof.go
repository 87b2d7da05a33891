package fleet

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// scheme is that of a question's Authorization: "Sluice-Replica TIME NONCE MAC".
	scheme = "Sluice-Replica"
	// proofField is the field of an answer with its code.
	proofField = "Sluice-Proof"
	// maxSkew is by how much the clocks of two replicas may differ.
	maxSkew = 30 * time.Second
	// maxNonces bounds the questions in twice maxSkew. Only who knows the secret adds one.
	maxNonces = 1 << 17
)

var (
	errNoSecret = errors.New("consul.register.replica_token_file is not set: replicas prove by its secret who they are")
	errNoProof  = errors.New("the answer has no proof that it is of a replica: it has another secret, or an earlier version of sluice")
)

// code returns a code of texts that only who knows the secret can make.
func code(secret, kind string, texts ...any) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "sluice %s %q", kind, texts) // quoted, so that no text runs into the next one
	return mac.Sum(nil)
}

func questionCode(secret, to, uri, at, nonce string) []byte {
	return code(secret, "question", to, uri, at, nonce)
}

func answerCode(secret, to, nonce string, body []byte) []byte {
	return code(secret, "answer", to, nonce, string(body))
}

// sign proves that the secret is known, for a question to the replica with a name. The answer must
// be to that nonce.
func sign(r *http.Request, secret, to string) (nonce string) {
	nonce = rand.Text()
	at := strconv.FormatInt(time.Now().UnixMilli(), 10)
	r.Header.Set("Authorization", fmt.Sprintf("%s %s %s %x", scheme, at, nonce, questionCode(secret, to, r.URL.RequestURI(), at, nonce)))
	return nonce
}

// verifyAnswer returns an error unless the answer to a question is of the replica with a name.
func verifyAnswer(header http.Header, secret, to, nonce string, body []byte) error {
	given, err := hex.DecodeString(header.Get(proofField))
	if err != nil || !hmac.Equal(given, answerCode(secret, to, nonce, body)) {
		return errNoProof
	}
	return nil
}

// Proofs checks the proofs of other replicas, and proves this one to them. It is safe for
// concurrent use.
type Proofs struct {
	name   func() string // of this replica for others
	secret func() (string, error)
	began  time.Time

	mu sync.Mutex // guards the fields below
	// used has the nonces of the last time, and usedBefore those of the one before: each for twice
	// maxSkew at least.
	used, usedBefore map[string]bool
	turned           time.Time
}

// NewProofs returns the Proofs of a replica with a name. secret returns the secret of all replicas;
// "": there is none.
func NewProofs(name func() string, secret func() (string, error)) *Proofs {
	now := time.Now()
	return &Proofs{name: name, secret: secret, began: now, used: make(map[string]bool), turned: now}
}

// Are reports whether a request is of somebody who says to be a replica.
func (p *Proofs) Are(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Authorization"), scheme+" ")
}

// Answer answers a question of a replica with what next writes, and a proof. It refuses a question
// without a proof, one of another time, and one that was asked before.
func (p *Proofs) Answer(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) error {
	secret, err := p.secret()
	if err != nil {
		return err
	}
	if secret == "" {
		return errNoSecret
	}
	fields := strings.Split(r.Header.Get("Authorization"), " ")
	if len(fields) != 4 {
		return errors.New("want " + scheme + " TIME NONCE CODE")
	}
	at, nonce := fields[1], fields[2]
	given, err := hex.DecodeString(fields[3])
	if err != nil || !hmac.Equal(given, questionCode(secret, p.name(), r.URL.RequestURI(), at, nonce)) {
		return errors.New("the question is of another secret, or to another replica")
	}
	if err := p.use(at, nonce, time.Now()); err != nil {
		return err
	}
	held := &heldAnswer{ResponseWriter: w, status: http.StatusOK}
	next(held, r)
	w.Header().Set(proofField, hex.EncodeToString(answerCode(secret, p.name(), nonce, held.body.Bytes())))
	w.WriteHeader(held.status)
	_, _ = w.Write(held.body.Bytes()) // an error means that the other replica has gone
	return nil
}

// use notes that a question was asked; an error: it is not of now, or was asked before.
func (p *Proofs) use(at, nonce string, now time.Time) error {
	ms, err := strconv.ParseInt(at, 10, 64)
	asked := time.UnixMilli(ms)
	if age := now.Sub(asked); err != nil || age > maxSkew || age < -maxSkew {
		return fmt.Errorf("the clocks of the replicas differ by more than %v, or the question is old", maxSkew)
	}
	if asked.Before(p.began.Truncate(time.Millisecond)) {
		// This replica does not know what was asked then.
		return errors.New("the question is from before the start of this replica")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.turned) >= 2*maxSkew {
		p.usedBefore, p.used, p.turned = p.used, make(map[string]bool), now
	}
	switch {
	case p.used[nonce] || p.usedBefore[nonce]:
		return errors.New("the question was asked before")
	case len(p.used) >= maxNonces:
		return errors.New("too many questions")
	}
	p.used[nonce] = true
	return nil
}

// heldAnswer keeps an answer until its code is known.
type heldAnswer struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (h *heldAnswer) WriteHeader(status int)      { h.status = status }
func (h *heldAnswer) Write(b []byte) (int, error) { return h.body.Write(b) }
