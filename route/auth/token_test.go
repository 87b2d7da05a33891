package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"sluice/route/places"
	"sluice/test/verify"
)

// testKeys are the secrets of an issuer, by the names of their keys.
var testKeys = sync.OnceValue(func() map[string]crypto.Signer {
	keys := make(map[string]crypto.Signer)
	keys["rsa"], _ = rsa.GenerateKey(rand.Reader, 2048)
	keys["ec"], _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	keys["p384"], _ = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	_, keys["ed"], _ = ed25519.GenerateKey(rand.Reader)
	keys["other"], _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader) // never in a set
	return keys
})

// setOf returns the set with the public keys of these names.
func setOf(names ...string) string {
	var set jose.JSONWebKeySet
	for _, name := range names {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: testKeys()[name].Public(), KeyID: name})
	}
	text, _ := json.Marshal(set)
	return string(text)
}

// signed returns a token with these texts of header and claims, signed with a key. The library
// signs only headers that it has written itself.
func signed(t testing.TB, algorithm jose.SignatureAlgorithm, key any, header, claims string) string {
	t.Helper()
	encoded := encode(header) + "." + encode(claims)
	return encoded + "." + base64.RawURLEncoding.EncodeToString(signatureOf(t, algorithm, key, encoded))
}

func encode(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func signatureOf(t testing.TB, algorithm jose.SignatureAlgorithm, key any, text string) []byte {
	t.Helper()
	switch key := key.(type) {
	case *rsa.PrivateKey:
		h := crypto.SHA256.New()
		h.Write([]byte(text))
		if algorithm == jose.PS256 {
			return verify.Result(rsa.SignPSS(rand.Reader, key, crypto.SHA256, h.Sum(nil), nil)).Must(t)
		}
		return verify.Result(rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, h.Sum(nil))).Must(t)
	case *ecdsa.PrivateKey:
		hash := map[int]crypto.Hash{256: crypto.SHA256, 384: crypto.SHA384}[key.Curve.Params().BitSize]
		h := hash.New()
		h.Write([]byte(text))
		r, s, err := ecdsa.Sign(rand.Reader, key, h.Sum(nil))
		verify.NoError(t, err)
		size := key.Curve.Params().BitSize / 8
		signature := make([]byte, 2*size)
		r.FillBytes(signature[:size])
		s.FillBytes(signature[size:])
		return signature
	case ed25519.PrivateKey:
		return ed25519.Sign(key, []byte(text))
	}
	t.Fatalf("no signature by a %T", key)
	return nil
}

// hmacOf returns a token with an HMAC whose secret are some bytes.
func hmacOf(t testing.TB, secret []byte, claims string) string {
	t.Helper()
	if len(secret) < 32 {
		secret = append(secret, make([]byte, 32-len(secret))...)
	}
	signer := verify.Result(jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: secret}, (&jose.SignerOptions{}).WithHeader("kid", "rsa"))).Must(t)
	token := verify.Result(signer.Sign([]byte(claims))).Must(t)
	return verify.Result(token.CompactSerialize()).Must(t)
}

// rulesOf returns rules with the keys of a set.
func rulesOf(t testing.TB, set string) *Tokens {
	t.Helper()
	s := newKeySet("test")
	verify.Result(s.use([]byte(set))).Must(t)
	return &Tokens{
		Keys: s,
		TokenRules: TokenRules{
			Issuer: "https://issuer", Audiences: []string{"shop", "web"}, Leeway: time.Minute,
			Algorithms: []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.ES384, jose.EdDSA},
		},
		Require: []Requirement{{NameClaim("realm.roles"), []string{"admin", "editor"}}},
	}
}

var noon = time.Unix(1_800_000_000, 0)

const goodClaims = `{"iss":"https://issuer","aud":"shop","sub":"ada","exp":1800000060,"realm":{"roles":["viewer","admin"]}}`

func check(r *Tokens, token string) (*Token, *Fault) {
	t, err := r.Check([]byte(token), noon, places.Many, never)
	if err == nil {
		return t, nil
	}
	var fault *Fault
	if !errors.As(err, &fault) {
		panic(fmt.Sprintf("%T is no Fault: %v", err, err))
	}
	return nil, fault
}

// Attacks on tokens (RFC 7515, 7519, 8725) and what is not one.
func TestTokens(t *testing.T) {
	r := rulesOf(t, setOf("rsa", "ec", "p384", "ed"))
	keys := testKeys()
	with := func(old, new string) string {
		verify.Require(t, strings.Contains(goodClaims, old), "%s is not in the claims", old)
		return strings.Replace(goodClaims, old, new, 1)
	}
	ec := func(claims string) string {
		return signed(t, jose.ES256, keys["ec"], `{"alg":"ES256","kid":"ec"}`, claims)
	}
	of := func(header string) string { return signed(t, jose.ES256, keys["ec"], header, goodClaims) }
	rsaPublic := keys["rsa"].Public().(*rsa.PublicKey)
	der := verify.Result(x509.MarshalPKIXPublicKey(rsaPublic)).Must(t)
	foreign := string(verify.Result(json.Marshal(jose.JSONWebKey{Key: keys["other"].Public(), KeyID: "ec"})).Must(t))
	good := ec(goodClaims)
	part := strings.Split(good, ".")
	for name, test := range map[string]struct {
		token string
		want  string // the fault, or nothing
	}{
		"ES256":                      {good, ""},
		"RS256":                      {signed(t, jose.RS256, keys["rsa"], `{"alg":"RS256","kid":"rsa","typ":"JWT"}`, goodClaims), ""},
		"PS256":                      {signed(t, jose.PS256, keys["rsa"], `{"alg":"PS256","kid":"rsa"}`, goodClaims), ""},
		"ES384":                      {signed(t, jose.ES384, keys["p384"], `{"alg":"ES384","kid":"p384"}`, goodClaims), ""},
		"EdDSA":                      {signed(t, jose.EdDSA, keys["ed"], `{"alg":"EdDSA","kid":"ed"}`, goodClaims), ""},
		"no kid":                     {of(`{"alg":"ES256"}`), ""},
		"aud in a list":              {ec(with(`"shop"`, `["x","web"]`)), ""},
		"exp with fraction":          {ec(with(`1800000060`, `1800000060.5`)), ""},
		"expired, within the leeway": {ec(with(`1800000060`, `1799999999`)), ""},
		"sub of a number's length":   {ec(with(`"sub":"ada"`, `"id":12345678901234567890`)), ""},

		"alg none":                   {encode(`{"alg":"none","kid":"ec"}`) + "." + encode(goodClaims) + ".", "algorithm"},
		"alg None, with a signature": {encode(`{"alg":"None"}`) + "." + part[1] + "." + part[2], "algorithm"},
		"alg in another case":        {of(`{"alg":"es256","kid":"ec"}`), "algorithm"},
		"no alg":                     {of(`{"kid":"ec"}`), "algorithm"},
		"alg of a number":            {of(`{"alg":256,"kid":"ec"}`), "algorithm"},
		"alg of a list":              {of(`{"alg":["ES256"],"kid":"ec"}`), "algorithm"},
		"HMAC with the public key":   {hmacOf(t, der, goodClaims), "algorithm"},
		"HMAC with the modulus":      {hmacOf(t, rsaPublic.N.Bytes(), goodClaims), "algorithm"},
		"HMAC with nothing":          {hmacOf(t, nil, goodClaims), "algorithm"},
		"alg of another key":         {of(`{"alg":"ES256","kid":"rsa"}`), "no key"},
		"alg of another curve":       {of(`{"alg":"ES384","kid":"ec"}`), "no key"},
		"an encrypted one":           {encode(`{"alg":"RSA-OAEP","enc":"A256GCM"}`) + ".a.b.c.d", "malformed"},

		"kid of nobody":         {of(`{"alg":"ES256","kid":"x"}`), "no key"},
		"kid as a path":         {of(`{"alg":"ES256","kid":"../../../../dev/null"}`), "no key"},
		"kid as SQL":            {of(`{"alg":"ES256","kid":"x' UNION SELECT 'key"}`), "no key"},
		"kid of a number":       {of(`{"alg":"ES256","kid":1}`), "malformed"},
		"kid of another case":   {of(`{"alg":"ES256","kid":"EC"}`), "no key"},
		"a key of its own":      {signed(t, jose.ES256, keys["other"], `{"alg":"ES256","kid":"ec","jwk":`+foreign+`}`, goodClaims), "signature"},
		"a URL of its own keys": {signed(t, jose.ES256, keys["other"], `{"alg":"ES256","kid":"ec","jku":"http://127.0.0.1:1/","x5u":"http://127.0.0.1:1/"}`, goodClaims), "signature"},
		"a foreign key":         {signed(t, jose.ES256, keys["other"], `{"alg":"ES256","kid":"ec"}`, goodClaims), "signature"},
		"a foreign key, no kid": {signed(t, jose.ES256, keys["other"], `{"alg":"ES256"}`, goodClaims), "signature"},

		"alg twice":             {of(`{"alg":"ES256","kid":"ec","alg":"none"}`), "malformed"},
		"kid twice":             {of(`{"alg":"ES256","kid":"x","kid":"ec"}`), "malformed"},
		"crit":                  {of(`{"alg":"ES256","kid":"ec","crit":["x"],"x":1}`), "extension"},
		"crit empty":            {of(`{"alg":"ES256","kid":"ec","crit":[]}`), "extension"},
		"b64 off":               {of(`{"alg":"ES256","kid":"ec","crit":["b64"],"b64":false}`), "extension"},
		"b64 off, without crit": {of(`{"alg":"ES256","kid":"ec","b64":false}`), "extension"},
		"a header of a list":    {of(`["ES256"]`), "malformed"},
		"a header of nothing":   {"." + part[1] + "." + part[2], "algorithm"},
		"a deep header":         {of(`{"alg":"ES256","kid":"ec","x":` + strings.Repeat("[", 1400) + strings.Repeat("]", 1400) + `}`), ""},
		"a long header":         {of(`{"alg":"ES256","kid":"ec","x":"` + strings.Repeat("x", 4096) + `"}`), "malformed"},
		"a long token":          {ec(`{"x":"` + strings.Repeat("x", 16<<10) + `"}`), "longer than 16 KiB"},
		"two parts":             {part[0] + "." + part[1], "malformed"},
		"four parts":            {good + ".x", "malformed"},
		"only dots":             {"..", "algorithm"},
		"blanks":                {part[0] + " ." + part[1] + "." + part[2], "malformed"},
		"padding":               {part[0] + "." + part[1] + "." + part[2] + "==", "malformed"},
		"another alphabet":      {part[0] + "." + part[1] + "." + strings.Repeat("+", len(part[2])), "malformed"},
		"JSON serialization":    {`{"protected":"` + part[0] + `","payload":"` + part[1] + `","signature":"` + part[2] + `"}`, "malformed"},
		"no signature":          {part[0] + "." + part[1] + ".", "signature"},
		"a signature of zeros":  {part[0] + "." + part[1] + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64)), "signature"},
		"a signature too long":  {good + "AAAA", "signature"},
		"other claims":          {part[0] + "." + encode(with("ada", "eve")) + "." + part[2], "signature"},
		"a DER signature":       {part[0] + "." + part[1] + "." + base64.RawURLEncoding.EncodeToString([]byte{0x30, 6, 2, 1, 1, 2, 1, 1}), "signature"},
		"no claims":             {part[0] + ".." + part[2], "signature"},

		"claims of a list":      {ec(`["iss"]`), "claims are malformed"},
		"claims of null":        {ec(`null`), "another issuer"},
		"claims of text":        {ec(`hello`), "claims are malformed"},
		"iss twice":             {ec(`{"iss":"https://evil","iss":"https://issuer","aud":"shop","exp":1800000060}`), "claims are malformed"},
		"iss of another":        {ec(with(`https://issuer`, `https://issuer.evil`)), "another issuer"},
		"iss in another case":   {ec(with(`https://issuer`, `https://Issuer`)), "another issuer"},
		"iss missing":           {ec(with(`"iss":"https://issuer",`, ``)), "another issuer"},
		"iss of a list":         {ec(with(`"https://issuer"`, `["https://issuer"]`)), "claims are malformed"},
		"ISS":                   {ec(with(`"iss"`, `"ISS"`)), "another issuer"},
		"aud of another":        {ec(with(`"shop"`, `"shop2"`)), "another audience"},
		"aud missing":           {ec(with(`"aud":"shop",`, ``)), "another audience"},
		"aud empty":             {ec(with(`"shop"`, `[]`)), "another audience"},
		"aud of numbers":        {ec(with(`"shop"`, `[1,"shop"]`)), "claims are malformed"},
		"aud of an object":      {ec(with(`"shop"`, `{"shop":1}`)), "claims are malformed"},
		"exp over":              {ec(with(`1800000060`, `1799999939`)), "expired"},
		"exp as text":           {ec(with(`1800000060`, `"1800000060"`)), "claims are malformed"},
		"exp huge":              {ec(with(`1800000060`, `1e300`)), "claims are malformed"},
		"exp larger":            {ec(with(`1800000060`, `9223372036854775807`)), "claims are malformed"},
		"exp negative":          {ec(with(`1800000060`, `-1`)), "expired"},
		"exp null":              {ec(with(`1800000060`, `null`)), "never expires"},
		"exp missing":           {ec(with(`"exp":1800000060,`, ``)), "never expires"},
		"exp true":              {ec(with(`1800000060`, `true`)), "claims are malformed"},
		"nbf in the future":     {ec(with(`"sub"`, `"nbf":1800000061,"sub"`)), "not valid yet"},
		"nbf within the leeway": {ec(with(`"sub"`, `"nbf":1800000060,"sub"`)), ""},
		"nbf huge":              {ec(with(`"sub"`, `"nbf":1e300,"sub"`)), "claims are malformed"},
		"nbf as text":           {ec(with(`"sub"`, `"nbf":"0","sub"`)), "claims are malformed"},
		"iat in the future":     {ec(with(`"sub"`, `"iat":1800009999,"sub"`)), "not valid yet"},
		"another role":          {ec(with(`"viewer","admin"`, `"viewer"`)), "claim realm.roles"},
		"a role as text":        {ec(with(`["viewer","admin"]`, `"admin"`)), ""},
		"a role in a text":      {ec(with(`["viewer","admin"]`, `"viewer admin"`)), "claim realm.roles"},
		"a role in a list":      {ec(with(`["viewer","admin"]`, `[["admin"]]`)), "claim realm.roles"},
		"roles at the top":      {ec(with(`"realm":{"roles":["viewer","admin"]}`, `"roles":["admin"]`)), "claim realm.roles"},
		"a claim with a dot":    {ec(with(`"realm":{"roles":["viewer","admin"]}`, `"realm.roles":["admin"]`)), ""},
	} {
		for range 2 { // also from memory
			_, fault := check(r, test.token)
			switch {
			case test.want == "" && fault != nil:
				t.Errorf("%s: %v", name, fault)
			case test.want != "" && (fault == nil || !strings.Contains(fault.Why, test.want)):
				t.Errorf("%s: got %v, want %q", name, fault, test.want)
			case fault != nil && strings.ContainsAny(fault.Why, "\"\\\r\n"):
				t.Errorf("%s: %q does not fit between quotes", name, fault.Why)
			}
		}
	}
}

// What is remembered of a token counts only for the keys, the rules and the time that it is right
// for.
func TestRememberedTokens(t *testing.T) {
	r := rulesOf(t, setOf("rsa", "ec"))
	token := signed(t, jose.ES256, testKeys()["ec"], `{"alg":"ES256","kid":"ec"}`, goodClaims)
	first, fault := check(r, token)
	verify.Require(t, fault == nil, "%v", fault)
	again, _ := check(r, token)
	verify.That(t, first == again, "the signature was checked twice")
	allocs := testing.AllocsPerRun(100, func() { check(r, token) })
	verify.That(t, allocs <= 1, "a remembered token takes %v allocations", allocs) // the copy of its text

	other := *r
	other.Algorithms = []jose.SignatureAlgorithm{jose.RS256}
	_, fault = check(&other, token)
	verify.That(t, fault != nil && strings.Contains(fault.Why, "algorithm"), "with other algorithms: %v", fault)
	other = *r
	other.Audiences = []string{"another"}
	_, fault = check(&other, token)
	verify.That(t, fault != nil && strings.Contains(fault.Why, "audience"), "for another audience: %v", fault)
	_, err := r.Check([]byte(token), noon.Add(3*time.Minute), places.Many, never)
	verify.That(t, err != nil && err.(*Fault).Kind == TokenExpired, "later: %v", err)
	long := signed(t, jose.ES256, testKeys()["ec"], `{"alg":"ES256"}`, goodClaims+strings.Repeat(" ", maxRememberedBytes))
	first, fault = check(r, long)
	verify.Require(t, fault == nil, "a long one: %v", fault)
	again, _ = check(r, long)
	verify.That(t, first != again, "a token of %d bytes is kept", len(long))
	verify.Result(r.Keys.use([]byte(setOf("rsa")))).Must(t)
	_, fault = check(r, token)
	verify.That(t, fault == errUnknownKey, "after its key has gone: %v", fault)
}

func TestClaimsAsText(t *testing.T) {
	r := rulesOf(t, setOf("ec"))
	r.Require = nil
	token, fault := check(r, signed(t, jose.ES256, testKeys()["ec"], `{"alg":"ES256"}`, `{"iss":"https://issuer","aud":"shop","exp":1800000060,
		"id":12345678901234567890,"on":true,"list":["a",1,"b,c",{"x":1},""],"o":{"p":{"q":"deep"}},"a.b":"dotted","scope":"read write","null":null,"comma":"a,b"}`))
	verify.Require(t, fault == nil, "%v", fault)
	for name, want := range map[string]string{
		"id": "12345678901234567890", "on": "true", "list": "a,1", "o.p.q": "deep", "a.b": "dotted", "scope": "read write",
		"comma": "", "o": "", "o.p": "", "o.x.q": "", "list.0": "", "null": "", "missing": "", ".": "", "iss": "https://issuer",
	} {
		verify.Equal(t, token.Line(NameClaim(name)), want, "%s", name)
	}
	verify.Equal(t, token.Key(NameClaim("comma")), "a,b", "the key")
	verify.Equal(t, token.Key(NameClaim("list")), "a,1", "the key of a list")
	for _, test := range []struct {
		name, text string
		want       bool
	}{
		{"scope", "write", true}, {"scope", "wri", false}, {"scope", "read write", true}, {"on", "true", true}, {"id", "1", false},
		{"list", "b,c", true}, {"list", "", false}, {"missing", "", false}, {"list", "1", true},
	} {
		verify.Equal(t, token.has(NameClaim(test.name), []string{test.text}), test.want, "%s has %q", test.name, test.text)
	}
}

// Keys that cannot be used do not spoil the others. A secret in a public set is none.
func TestKeysOfASet(t *testing.T) {
	ec := strings.TrimSuffix(strings.TrimPrefix(setOf("ec"), `{"keys":[`), `]}`)
	weak := verify.Result(json.Marshal(jose.JSONWebKey{Key: &rsa.PublicKey{N: verify.Result(rsa.GenerateKey(rand.Reader, 1024)).Must(t).N, E: 65537}, KeyID: "weak"})).Must(t)
	private := verify.Result(json.Marshal(jose.JSONWebKey{Key: testKeys()["p384"], KeyID: "private"})).Must(t)
	for _, test := range []struct {
		text    string
		keys    int
		ignored int
	}{
		{`{"keys":[` + ec + `]}`, 1, 0},
		{`{"keys":[` + ec + `,{"kty":"oct","k":"c2VjcmV0","kid":"x"},{"kty":"new"},{"kty":"OKP","crv":"X25519","x":"AA"},7,` + string(weak) + `,` + string(private) + `]}`, 1, 6},
		{`{"keys":[` + strings.Replace(ec, `{`, `{"use":"enc",`, 1) + `]}`, 0, 0},
		{`{"keys":[` + strings.Replace(ec, `{`, `{"alg":"ES384",`, 1) + `]}`, 0, 0},
		{`{"keys":[` + strings.Replace(ec, `{`, `{"alg":"HS256",`, 1) + `]}`, 0, 0},
		{`{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`, 0, 0},
		{`{"keys":[]}`, 0, 0}, {`{}`, 0, 0}, {`[]`, 0, 0}, {``, 0, 0}, {`<html>`, 0, 0}, {ec, 0, 0}, {`{"keys":{}}`, 0, 0},
		{`{"keys":[` + strings.Repeat(ec+",", maxKeys) + ec + `]}`, 0, 0},
	} {
		k, err := parseKeys([]byte(test.text))
		if test.keys == 0 {
			verify.That(t, err != nil, "%.80s: no error", test.text)
			continue
		}
		verify.Require(t, err == nil, "%.80s: %v", test.text, err)
		verify.That(t, len(k.public) == test.keys && k.ignored == test.ignored, "%.80s: %d keys, %d ignored", test.text, len(k.public), k.ignored)
	}
}

func noWait() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx, func() {}
}

// No bytes in place of a token are believed, or end the process.
func FuzzToken(f *testing.F) {
	r := rulesOf(f, setOf("rsa", "ec", "p384", "ed"))
	good := signed(f, jose.ES256, testKeys()["ec"], `{"alg":"ES256","kid":"ec"}`, goodClaims)
	part := strings.Split(good, ".")
	f.Add([]byte(good))
	f.Add([]byte(part[0] + "." + part[1] + "."))
	f.Add([]byte(encode(`{"alg":"none"}`) + "." + part[1] + "."))
	f.Add([]byte(encode(`{"alg":"RS256","jwk":{"kty":"RSA","n":"AA","e":"AQAB"},"x5c":["AA"],"crit":["b64"],"b64":false}`) + "." + part[1] + "." + part[2]))
	f.Fuzz(func(t *testing.T, text []byte) {
		token, err := r.Check(text, noon, places.Many, noWait)
		verify.That(t, err != nil || token.Subject() == "ada", "%q is believed", text)
	})
}

// No set of keys ends the process, or lets a token that nobody has signed pass.
func FuzzKeys(f *testing.F) {
	f.Add([]byte(setOf("rsa", "ec", "ed")))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"` + encode(strings.Repeat("\x00\xff", 128)) + `","e":"AA"},{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},{"kty":"OKP","crv":"Ed25519","x":""}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := parseKeys(text)
		if err != nil {
			return
		}
		r := rulesOf(t, setOf("ec"))
		r.Keys.current.Store(k)
		for _, algorithm := range r.Algorithms {
			_, fault := check(r, encode(`{"alg":"`+string(algorithm)+`"}`)+"."+encode(goodClaims)+"."+encode(strings.Repeat("\x01", 256)))
			verify.That(t, fault != nil, "a token without a signature is believed with %s", algorithm)
		}
	})
}
