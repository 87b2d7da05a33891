package fleet

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/test/verify"
)

// proofsOf returns the proofs of a replica with a name and a secret.
func proofsOf(name, secret string) *Proofs {
	return NewProofs(func() string { return name }, func() (string, error) { return secret, nil })
}

// question returns a question to a replica, and its nonce.
func question(secret, to, uri string) (r *http.Request, nonce string) {
	r = httptest.NewRequest(http.MethodGet, uri, nil)
	return r, sign(r, secret, to)
}

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) }

// An answer counts for its question, its replica and its secret only, and as it was given.
func TestProofOfAnAnswer(t *testing.T) {
	b := proofsOf("b", testSecret) // before the question, which is not from before its start
	r, nonce := question(testSecret, "b", "/api/replica")
	w := httptest.NewRecorder()
	verify.NoError(t, b.Answer(w, r, hello))
	body := w.Body.Bytes()
	verify.NoError(t, verifyAnswer(w.Header(), testSecret, "b", nonce, body))
	_, later := question(testSecret, "b", "/api/replica")
	for what, err := range map[string]error{
		"an old answer":      verifyAnswer(w.Header(), testSecret, "b", later, body),
		"of another replica": verifyAnswer(w.Header(), testSecret, "c", nonce, body),
		"another secret":     verifyAnswer(w.Header(), "other", "b", nonce, body),
		"another body":       verifyAnswer(w.Header(), testSecret, "b", nonce, []byte("hellp")),
		"without a proof":    verifyAnswer(http.Header{}, testSecret, "b", nonce, body),
	} {
		verify.That(t, err == errNoProof, "%s: %v", what, err)
	}
}

// A question is answered once, soon, and by the replica that it is for. The secret is not in it.
func TestProofOfAQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Second)
		b := proofsOf("b", testSecret)
		ask := func(p *Proofs, r *http.Request) string {
			if err := p.Answer(httptest.NewRecorder(), r, hello); err != nil {
				return err.Error()
			}
			return "answered"
		}
		r, _ := question(testSecret, "b", "/api/limits/counts?after=1")
		verify.That(t, !strings.Contains(r.Header.Get("Authorization"), testSecret), "it has the secret: %v", r.Header)
		moved := r.Clone(t.Context())
		moved.URL.Path = "/api/replica"
		for what, got := range map[string]string{
			"another path":    ask(b, moved),
			"another replica": ask(proofsOf("c", testSecret), r),
			"another secret":  ask(proofsOf("b", "other"), r),
		} {
			verify.Equal(t, got, "the question is of another secret, or to another replica", "%s", what)
		}
		verify.Equal(t, ask(proofsOf("b", ""), r), errNoSecret.Error(), "no secret")
		verify.Equal(t, ask(b, r), "answered", "the first time")
		for range 8 { // until long after it is too old
			verify.That(t, ask(b, r) != "answered", "it is answered again")
			time.Sleep(maxSkew / 3)
		}
		verify.That(t, len(b.used)+len(b.usedBefore) <= 1, "%d and %d nonces", len(b.used), len(b.usedBefore))

		// Clocks differ, and a new process does not know what an old one was asked.
		early, _ := question(testSecret, "b", "/api/replica")
		old, _ := question(testSecret, "b", "/api/replica")
		time.Sleep(maxSkew)
		verify.Equal(t, ask(b, early), "answered", "a clock that is behind")
		verify.Contains(t, ask(proofsOf("b", testSecret), old), "before the start", "a new process")
		time.Sleep(time.Millisecond)
		verify.Contains(t, ask(b, old), "differ by more than 30s", "an old question")
	})
}
