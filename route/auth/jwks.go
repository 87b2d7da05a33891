package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/go-jose/go-jose/v4"
)

// Limits of a set of keys. Below the first length of RSA keys a signature proves nothing (RFC 7518,
// section 3.3), and above the other one it takes long to check.
const (
	maxKeySetBytes = 1 << 20
	maxKeys        = 64
	minRSABits     = 2048
	maxRSABits     = 8192
)

// rememberedTokens is how many tokens with a right signature are remembered for a set of keys, and
// maxRememberedBytes the length of the longest.
const (
	rememberedTokens   = 4096
	maxRememberedBytes = 4096
)

// keys are the public keys of an issuer (RFC 7517). Only what is remembered of them changes.
type keys struct {
	text    []byte
	public  []publicKey
	ignored int // keys of the set that cannot be used

	// remembered has tokens whose signature is right, by the first bytes of their hash: a new token
	// replaces another one, so that there is neither a lock nor an order. Another set remembers
	// nothing of this one.
	remembered []atomic.Pointer[Token]
}

type publicKey struct {
	id         string
	algorithms []jose.SignatureAlgorithm // the only ones that it is for
	key        any
}

// parseKeys reads a JSON Web Key Set. A key that cannot be used does not spoil the others.
func parseKeys(text []byte) (*keys, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	switch err := json.Unmarshal(text, &set); {
	case err != nil:
		return nil, fmt.Errorf("is no JSON Web Key Set: %w", err)
	case len(set.Keys) > maxKeys:
		return nil, fmt.Errorf("has more than %d keys", maxKeys)
	}
	k := &keys{text: text, remembered: make([]atomic.Pointer[Token], rememberedTokens)}
	var first error
	for _, one := range set.Keys {
		key, err := parseKey(one)
		if err != nil {
			k.ignored++
			first = errors.Join(first, err)
			continue
		}
		k.public = append(k.public, key)
	}
	if len(k.public) == 0 {
		return nil, errors.Join(errors.New("has no key that can be used"), first)
	}
	return k, nil
}

// parseKey reads one key of a set. Who publishes a secret has no secret.
func parseKey(text []byte) (publicKey, error) {
	var secret struct {
		D json.RawMessage `json:"d"`
		K json.RawMessage `json:"k"`
	}
	var key jose.JSONWebKey
	if err := json.Unmarshal(text, &secret); err != nil {
		return publicKey{}, err
	}
	if secret.D != nil || secret.K != nil {
		return publicKey{}, errors.New("a key is not a public one")
	}
	if err := key.UnmarshalJSON(text); err != nil {
		return publicKey{}, err
	}
	algorithms := algorithmsOf(key.Key)
	if key.Algorithm != "" {
		algorithms = slices.DeleteFunc(algorithms, func(a jose.SignatureAlgorithm) bool { return string(a) != key.Algorithm })
	}
	if len(algorithms) == 0 || key.Use != "" && key.Use != "sig" {
		return publicKey{}, errors.New("a key is not for signatures that sluice checks")
	}
	return publicKey{key.KeyID, algorithms, key.Key}, nil
}

// algorithmsOf returns the algorithms that a key can be used with.
func algorithmsOf(key any) []jose.SignatureAlgorithm {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits >= minRSABits && bits <= maxRSABits {
			return []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512}
		}
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return []jose.SignatureAlgorithm{jose.ES256}
		case elliptic.P384():
			return []jose.SignatureAlgorithm{jose.ES384}
		case elliptic.P521():
			return []jose.SignatureAlgorithm{jose.ES512}
		}
	case ed25519.PublicKey:
		return []jose.SignatureAlgorithm{jose.EdDSA}
	}
	return nil
}

// of returns the keys that a token with this header may be signed with: a token that names no key,
// with any.
func (k *keys) of(id string, algorithm jose.SignatureAlgorithm) (list []any) {
	for i := range k.public {
		if p := &k.public[i]; (id == "" || id == p.id) && slices.Contains(p.algorithms, algorithm) {
			list = append(list, p.key)
		}
	}
	return list
}

// hash is what a token is remembered by: no other one can be found that has the same.
type hash [sha256.Size]byte

func (k *keys) slot(h *hash) *atomic.Pointer[Token] {
	return &k.remembered[(int(h[0])<<8|int(h[1]))%len(k.remembered)]
}

// recall returns the token with that hash, or nil.
func (k *keys) recall(h *hash) *Token {
	if t := k.slot(h).Load(); t != nil && t.hash == *h {
		return t
	}
	return nil
}

// remember remembers a token whose signature is right.
func (k *keys) remember(t *Token) { k.slot(&t.hash).Store(t) }
