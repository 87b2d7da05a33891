package route

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// CORS says which pages of other origins may use a route (Fetch standard, section 3.3). The peers'
// own fields about that are replaced: see [CORSFields].
type CORS struct {
	origins     origins
	methods     string // of Access-Control-Allow-Methods; "*": the one that is asked for
	headers     string // of Access-Control-Allow-Headers; "*": the ones that are asked for; "": none
	exposed     string // of Access-Control-Expose-Headers; "": none
	credentials bool
	maxAge      string // in seconds
}

// CORSOptions are the settings of a [CORS].
type CORSOptions struct {
	// AllowOrigins are origins ("https://app.example.com"), also with a star for one or more labels
	// at the start of the host ("https://*.example.com"), "~" and a regular expression for a whole
	// origin, "null", or "*" for any.
	AllowOrigins []string `key:"allow_origins" format:"text" required:"yes"`
	// AllowMethods may be "*". In a configuration it is empty for those that need no preflight.
	AllowMethods []string `key:"allow_methods" format:"token"`
	AllowHeaders []string `key:"allow_headers" format:"token"` // or "*"
	// ExposeHeaders may be "*" without credentials.
	ExposeHeaders    []string `key:"expose_headers" format:"token"`
	AllowCredentials bool     `key:"allow_credentials" default:"false"`
	// MaxAge is how long a client may remember the answer to a preflight.
	MaxAge time.Duration `key:"max_age" default:"10m" min:"0s" max:"24h"`
}

// CORSFields are the fields of responses that are CORS's alone, in lower case.
var CORSFields = []string{
	"access-control-allow-credentials", "access-control-allow-headers", "access-control-allow-methods",
	"access-control-allow-origin", "access-control-allow-private-network", "access-control-expose-headers",
	"access-control-max-age",
}

// anyone stands for every origin, method or header.
const anyone = "*"

// NewCORS checks o. An *OptionError says what is invalid.
func NewCORS(o CORSOptions) (*CORS, error) {
	c := &CORS{
		methods: joined(o.AllowMethods), headers: joined(o.AllowHeaders), exposed: joined(o.ExposeHeaders),
		credentials: o.AllowCredentials, maxAge: strconv.FormatInt(int64(o.MaxAge/time.Second), 10),
	}
	for _, origin := range o.AllowOrigins {
		if err := c.origins.add(origin); err != nil {
			return nil, &OptionError{"allow_origins", origin, err}
		}
	}
	if !o.AllowCredentials {
		return c, nil
	}
	for _, origin := range o.AllowOrigins {
		var one origins
		_ = one.add(origin) // as before
		if slices.ContainsFunc(anybody, one.allow) {
			return nil, &OptionError{"allow_origins", origin, errors.New("not with allow_credentials: pages of anybody could act for the user")}
		}
	}
	if c.exposed == anyone {
		return nil, &OptionError{"expose_headers", anyone, errors.New("not with allow_credentials: clients read it as the name of a header then")}
	}
	return c, nil
}

// anybody are origins that an attacker can have, or of nobody in particular: the origin of pages in
// a sandbox, and of hosts in a domain that does not exist (RFC 2606).
var anybody = []string{"null", "https://sluice.invalid", "http://sluice.invalid", "https://www.sluice.invalid", "http://www.sluice.invalid"}

// joined returns a list as a field has it; "*" if that is in it.
func joined(list []string) string {
	if slices.Contains(list, anyone) {
		return anyone
	}
	return strings.Join(list, ", ")
}

// origin returns what Access-Control-Allow-Origin says to pages of an origin; "": there is no such
// field.
func (c *CORS) origin(origin string) string {
	switch {
	case c.origins.all && !c.credentials:
		return anyone
	case c.origins.allow(origin):
		return origin
	}
	return ""
}

// Varies reports whether responses differ by the origin.
func (c *CORS) Varies() bool { return !c.origins.all || c.credentials }

// Allows reports whether pages of an origin may use the route.
func (c *CORS) Allows(origin string) bool { return c.origin(origin) != "" }

// Fields returns the fields of a response to a request of pages of an origin; "": it names none.
// Vary is not among them.
func (c *CORS) Fields(origin string) (fields [][2]string) {
	if origin == "" && c.Varies() {
		return nil
	}
	allowed := c.origin(origin)
	if allowed == "" {
		return nil
	}
	fields = append(fields, [2]string{"Access-Control-Allow-Origin", allowed})
	if c.credentials {
		fields = append(fields, [2]string{"Access-Control-Allow-Credentials", "true"})
	}
	if c.exposed != "" {
		fields = append(fields, [2]string{"Access-Control-Expose-Headers", c.exposed})
	}
	return fields
}

// PreflightFields returns what the answer to a preflight for a method and header names, as it has
// them, has besides Fields. They do not depend on whether these are allowed: the client decides
// that.
func (c *CORS) PreflightFields(method, headers string) (fields [][2]string) {
	methods, names := c.methods, c.headers
	if methods == anyone { // of which clients make an exception with credentials
		methods = method
	}
	if names == anyone { // likewise, and always of Authorization
		names = headers
	}
	if methods != "" {
		fields = append(fields, [2]string{"Access-Control-Allow-Methods", methods})
	}
	if names != "" {
		fields = append(fields, [2]string{"Access-Control-Allow-Headers", names})
	}
	return append(fields, [2]string{"Access-Control-Max-Age", c.maxAge})
}

// origins is a set of origins.
type origins struct {
	all       bool
	exact     map[string]bool
	wildcards []wildcardOrigin
	regexps   []*regexp.Regexp // each for a whole origin
	parts     int              // of regexps together
}

// A wildcardOrigin is every origin that begins and ends like this, with labels of a host between.
type wildcardOrigin struct{ start, end string }

// maxOrigin is longer than any origin of a page: the name of a host has at most 253 characters.
const maxOrigin = 512

// validOrigin is an origin as clients write it: in lower case, without a slash at its end. The host
// may begin with a star.
var validOrigin = regexp.MustCompile(`^([a-z][a-z0-9+.-]*)://(\*\.)?([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?$`)

// usualPorts are the ports that clients leave out.
var usualPorts = map[string]string{"http": ":80", "https": ":443"}

// add adds what a text of CORSOptions.AllowOrigins stands for.
func (o *origins) add(text string) error {
	if pattern, ok := strings.CutPrefix(text, "~"); ok {
		if len(pattern) > maxRegexp {
			return fmt.Errorf("the regular expression has %d characters, the limit is %d", len(pattern), maxRegexp)
		}
		if _, err := CompileRegexp(pattern); err != nil { // also one that would end the group below
			return fmt.Errorf("want a regular expression in Go's syntax after ~: %w", err)
		}
		if o.parts += partsOf(pattern); o.parts > maxParts {
			return fmt.Errorf("the regular expressions have %d parts together, the limit is %d", o.parts, maxParts)
		}
		re, err := regexp.Compile(`\A(?:` + pattern + `)\z`)
		if err != nil {
			return fmt.Errorf("want a shorter regular expression: %w", err)
		}
		o.regexps = append(o.regexps, re)
		return nil
	}
	if text == anyone {
		o.all = true
		return nil
	}
	parts := validOrigin.FindStringSubmatch(text)
	switch {
	case text == "null":
	case parts == nil:
		return errors.New(`want SCHEME://HOST or SCHEME://HOST:PORT in lower case, without a path, such as https://app.example.com or https://*.example.com; "~" with a regular expression; null, or *`)
	case parts[4] != "" && parts[4] == usualPorts[parts[1]]:
		return errors.New("want it without the port, as browsers write it")
	case parts[2] != "":
		o.wildcards = append(o.wildcards, wildcardOrigin{parts[1] + "://", "." + parts[3] + parts[4]})
		return nil
	}
	if o.exact == nil {
		o.exact = make(map[string]bool)
	}
	o.exact[text] = true
	return nil
}

// allow reports whether an origin, as a client has sent it, is in the set. Origins are compared
// byte by byte, as browsers do.
func (o *origins) allow(origin string) bool {
	if origin == "" || len(origin) > maxOrigin {
		return false
	}
	return o.all || o.exact[origin] ||
		slices.ContainsFunc(o.wildcards, func(w wildcardOrigin) bool { return w.matches(origin) }) ||
		slices.ContainsFunc(o.regexps, func(re *regexp.Regexp) bool { return re.MatchString(origin) })
}

func (w wildcardOrigin) matches(origin string) bool {
	labels, ok := strings.CutPrefix(origin, w.start)
	if ok {
		labels, ok = strings.CutSuffix(labels, w.end)
	}
	return ok && labels != "" && !strings.ContainsFunc(labels, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.'
	})
}
