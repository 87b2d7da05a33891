package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
	"github.com/go-jose/go-jose/v4/jwt"

	"sluice/route/places"
)

// Limits of the text of a token, and of its first part, which is read before its signature is
// checked.
const (
	maxTokenBytes       = 16 << 10
	maxTokenHeaderBytes = 4 << 10
)

// A Token is a JSON Web Token (RFC 7519) whose signature is right. It does not change.
type Token struct {
	hash      hash
	algorithm jose.SignatureAlgorithm
	known     jwt.Claims
	claims    map[string]any
}

// Subject returns who the token is about; "": it does not tell.
func (t *Token) Subject() string { return t.known.Subject }

// claim returns the value of a claim; nil: there is none.
func (t *Token) claim(name ClaimName) any {
	value, ok := t.claims[name.whole]
	if ok || len(name.path) == 0 {
		return value
	}
	value = t.claims
	for _, key := range name.path {
		object, _ := value.(map[string]any)
		value = object[key]
	}
	return value
}

// has reports whether a claim, an element of its list, or a word of its scope is one of some texts.
func (t *Token) has(name ClaimName, texts []string) bool {
	value := t.claim(name)
	if s, ok := value.(string); ok && (name.whole == "scope" || name.whole == "scp") { // RFC 8693, section 4.2
		for word := range strings.FieldsSeq(s) {
			if slices.Contains(texts, word) {
				return true
			}
		}
	}
	list, ok := value.([]any)
	if !ok {
		s := textOf(value)
		return s != "" && slices.Contains(texts, s)
	}
	return slices.ContainsFunc(list, func(element any) bool {
		s := textOf(element)
		return s != "" && slices.Contains(texts, s)
	})
}

// Key returns the text that identifies a claim, or "".
func (t *Token) Key(name ClaimName) string {
	if text := textOf(t.claim(name)); text != "" {
		return text
	}
	return t.Line(name)
}

// Line returns the text of a claim for a header: that of a list has the elements with commas
// between them. What has a comma itself is left out, since peers would read it as two; "": nothing
// is left, or the claim is none, or an object.
func (t *Token) Line(name ClaimName) string {
	value := t.claim(name)
	list, ok := value.([]any)
	if !ok {
		list = []any{value}
	}
	var line []string
	for _, element := range list {
		if s := textOf(element); s != "" && !strings.Contains(s, ",") {
			line = append(line, s)
		}
	}
	return strings.Join(line, ",")
}

// textOf returns the text of what is neither a list nor an object, or "".
func textOf(value any) string {
	switch v := value.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	}
	return ""
}

// A ClaimName is the name of a claim, or the names of objects and of a claim in them, with dots
// between them. If there is a claim whose name has these dots, it is that one.
type ClaimName struct {
	whole string
	path  []string // nil: without dots
}

// NameClaim returns the ClaimName of a text.
func NameClaim(text string) ClaimName {
	name := ClaimName{whole: text}
	if strings.Contains(text, ".") {
		name.path = strings.Split(text, ".")
	}
	return name
}

// String returns the text.
func (n ClaimName) String() string { return n.whole }

// A Requirement is that a claim has at least one of some texts.
type Requirement struct {
	Claim ClaimName
	Texts []string
}

// A Fault is why a token does not allow a request.
type Fault struct {
	Kind FaultKind
	Why  string // for people, in printable ASCII without quotes
}

func (f *Fault) Error() string { return f.Why }

// A FaultKind says what a client can do about a Fault.
type FaultKind uint8

const (
	TokenInvalid FaultKind = iota // want another token
	TokenExpired                  // want a new one
	TokenDenied                   // the token is right, and not for this
	KeysUnknown                   // ask later: the keys of the issuer could not be read
)

var (
	errKeysUnknown = &Fault{KeysUnknown, "the keys of the issuer could not be read"}
	errUnknownKey  = &Fault{TokenInvalid, "the issuer has no key as the token names it"}
	errMalformed   = &Fault{TokenInvalid, "it is malformed"}
)

// Tokens are the rules for the tokens of a route. They do not change, and are safe for concurrent
// use.
type Tokens struct {
	Keys *KeySet
	TokenRules
	Require []Requirement // all of them
}

// TokenRules are the settings of [Tokens] that are as in the configuration.
type TokenRules struct {
	Issuer    string   `key:"issuer" format:"text" required:"yes"`
	Audiences []string `key:"audiences" format:"text"` // the token is for one of them; empty: any
	// Algorithms are of signatures. There is none by which a public key could count as a secret
	// (HMAC), and not the absence of a signature.
	Algorithms []jose.SignatureAlgorithm `key:"algorithms" oneof:"RS256|RS384|RS512|PS256|PS384|PS512|ES256|ES384|ES512|EdDSA"`
	// Leeway is by how much clocks may differ.
	Leeway time.Duration `key:"leeway" default:"1m" min:"0s" max:"10m"`
}

// Check returns the token with that text, if it allows a request at that time of a client. Else the
// error is a *Fault. If the token is signed with a key that is not known, Check waits for the keys
// of the issuer to be read again, until the context that waiting returns ends.
func (r *Tokens) Check(text []byte, now time.Time, client places.Block, waiting func() (context.Context, context.CancelFunc)) (*Token, error) {
	if len(text) > maxTokenBytes {
		return nil, &Fault{TokenInvalid, fmt.Sprintf("it is longer than %d KiB", maxTokenBytes>>10)}
	}
	h := hash(sha256.Sum256(text))
	if k := r.Keys.current.Load(); k != nil {
		if t := k.recall(&h); t != nil && slices.Contains(r.Algorithms, t.algorithm) {
			return t, r.judge(t, now)
		}
	}
	t, err := r.verify(text, h, client, waiting)
	if err != nil {
		return nil, err
	}
	return t, r.judge(t, now)
}

// verify checks the signature.
func (r *Tokens) verify(text []byte, h hash, client places.Block, waiting func() (context.Context, context.CancelFunc)) (*Token, error) {
	if bytes.IndexByte(text, '.') > maxTokenHeaderBytes {
		return nil, errMalformed
	}
	signed, err := jose.ParseSignedCompact(string(text), r.Algorithms)
	if wrong := (*jose.ErrUnexpectedSignatureAlgorithm)(nil); errors.As(err, &wrong) {
		return nil, &Fault{TokenInvalid, "the route does not allow its algorithm"}
	}
	if err != nil {
		return nil, errMalformed
	}
	header := &signed.Signatures[0].Protected
	if header.ExtraHeaders["crit"] != nil || header.ExtraHeaders["b64"] != nil { // RFC 7515, section 4.1.11; RFC 7797, section 7
		return nil, &Fault{TokenInvalid, "it needs an extension that sluice does not have"}
	}
	algorithm := jose.SignatureAlgorithm(header.Algorithm)
	k, err := r.Keys.with(header.KeyID, algorithm, client, waiting)
	if err != nil {
		return nil, err
	}
	var payload []byte
	for _, key := range k.of(header.KeyID, algorithm) {
		if payload, err = signed.Verify(key); err == nil {
			break
		}
	}
	if payload == nil {
		r.Keys.require() // the issuer may have another key with that name by now
		return nil, &Fault{TokenInvalid, "its signature is wrong"}
	}
	t := &Token{hash: h, algorithm: algorithm}
	claims := json.NewDecoder(bytes.NewReader(payload))
	claims.SetNumberType(json.UnmarshalJSONNumber) // an id may have more digits than a float
	if json.Unmarshal(payload, &t.known) != nil || claims.Decode(&t.claims) != nil {
		return nil, &Fault{TokenInvalid, "its claims are malformed"}
	}
	if len(text) <= maxRememberedBytes {
		k.remember(t)
	}
	return t, nil
}

// judge returns a *Fault if a token with a right signature does not allow a request at that time.
func (r *Tokens) judge(t *Token, now time.Time) error {
	switch err := t.known.ValidateWithLeeway(jwt.Expected{Issuer: r.Issuer, AnyAudience: r.Audiences, Time: now}, r.Leeway); {
	case errors.Is(err, jwt.ErrInvalidIssuer):
		return &Fault{TokenInvalid, "it is of another issuer"}
	case errors.Is(err, jwt.ErrInvalidAudience):
		return &Fault{TokenInvalid, "it is for another audience"}
	case errors.Is(err, jwt.ErrExpired):
		return &Fault{TokenExpired, "it has expired"}
	case err != nil:
		return &Fault{TokenInvalid, "it is not valid yet"}
	case t.known.Expiry == nil:
		return &Fault{TokenInvalid, "it never expires"}
	}
	for i := range r.Require {
		q := &r.Require[i]
		if !t.has(q.Claim, q.Texts) {
			return &Fault{TokenDenied, "its claim " + q.Claim.whole + " has none of the values that the route wants"}
		}
	}
	return nil
}
