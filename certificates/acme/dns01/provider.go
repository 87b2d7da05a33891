package dns01

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"github.com/libdns/cloudflare"
	"github.com/libdns/libdns"
	"github.com/libdns/rfc2136"

	"sluice/config/regular"
)

// The names of providers.
const (
	Cloudflare = "cloudflare"
	RFC2136    = "rfc2136" // a name server that takes changes
	Exec       = "exec"    // a program of the operator's
)

// A Provider makes and removes records. Each time it reads its files, so a changed secret counts.
type Provider struct {
	Name string `key:"provider" required:"yes" oneof:"cloudflare|rfc2136|exec"`
	// TokenFile has a token of the API of Cloudflare.
	TokenFile string `key:"token_file" format:"file"`
	Server    string `key:"server" format:"dns_server"` // of RFC2136: "host:port"
	// KeyFile has the key of RFC2136, as BIND writes it.
	KeyFile string `key:"key_file" format:"file"`
	// Command is the program of Exec and its first arguments.
	Command []string `key:"command"`
}

// records makes and removes records of a zone, also concurrently, and ends soon after its context.
type records interface {
	libdns.RecordAppender
	libdns.RecordDeleter
}

// Check reports why p cannot be used now, as far as this machine knows.
func (p Provider) Check() error {
	_, err := p.open()
	return err
}

// open reads the files of p.
func (p Provider) open() (records, error) {
	switch p.Name {
	case RFC2136:
		key, err := readKey(p.KeyFile)
		if err != nil {
			return nil, err
		}
		key.Server = p.Server
		return key, nil
	case Exec:
		if len(p.Command) == 0 {
			return nil, errors.New("there is no command")
		}
		program, err := exec.LookPath(p.Command[0])
		if err != nil {
			return nil, err
		}
		return hook{append([]string{program}, p.Command[1:]...)}, nil
	}
	token, err := readSecret(p.TokenFile)
	if err != nil {
		return nil, err
	}
	if !isToken(token) {
		return nil, fmt.Errorf("%s: want a token on one line, without spaces", p.TokenFile)
	}
	return &cloudflare.Provider{APIToken: token}, nil
}

var isToken = regexp.MustCompile(`^[!-~]+$`).MatchString

// maxSecretBytes is the maximum size of a file with a secret.
const maxSecretBytes = 16 << 10

// readSecret returns the text of a file, without the blanks around it.
func readSecret(name string) (string, error) {
	text, err := regular.ReadUpTo(name, maxSecretBytes)
	return strings.TrimSpace(string(text)), err
}

// The format of tsig-keygen, of BIND's configuration and of nsupdate's option -k.
var (
	keyStatement = regexp.MustCompile(`(?s)^key\s+"?([A-Za-z0-9._-]+)"?\s*\{([^{}]*)\}\s*;?$`)
	keyAlgorithm = regexp.MustCompile(`\balgorithm\s+"?([A-Za-z0-9-]+)\.?"?\s*;`)
	keySecret    = regexp.MustCompile(`\bsecret\s+"?([A-Za-z0-9+/=]+)"?\s*;`)
	algorithms   = []string{"hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512"}
)

// readKey reads the file of a key. No error contains its text.
func readKey(name string) (*rfc2136.Provider, error) {
	text, err := readSecret(name)
	if err != nil {
		return nil, err
	}
	statement := keyStatement.FindStringSubmatch(text)
	if statement == nil {
		return nil, fmt.Errorf(`%s: want one key as tsig-keygen writes it: key "NAME" { algorithm hmac-sha256; secret "BASE64"; };`, name)
	}
	algorithm, secret := keyAlgorithm.FindStringSubmatch(statement[2]), keySecret.FindStringSubmatch(statement[2])
	if algorithm == nil || !slices.Contains(algorithms, strings.ToLower(algorithm[1])) {
		return nil, fmt.Errorf("%s: want one of the algorithms %s", name, strings.Join(algorithms, ", "))
	}
	if secret == nil {
		return nil, fmt.Errorf("%s: want a secret in base64", name)
	}
	if _, err := base64.StdEncoding.DecodeString(secret[1]); err != nil {
		return nil, fmt.Errorf("%s: the secret is no base64", name)
	}
	return &rfc2136.Provider{KeyName: statement[1], KeyAlg: strings.ToLower(algorithm[1]), Key: secret[1]}, nil
}
