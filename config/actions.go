package config

import (
	"cmp"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/balancer"
	"sluice/config/decoding"
	"sluice/route"
	"sluice/route/auth"
	"sluice/route/compression"
)

// Actions are the keys of a route for what happens to its requests and their responses,
// besides that a service answers them.
type Actions struct {
	StripPrefix       string             `key:"strip_prefix"` // as in route.PathOptions
	AddPrefix         string             `key:"add_prefix"`   // likewise
	Rewrite           *Rewrite           `key:"rewrite"`
	Redirect          *Redirect          `key:"redirect"`        // such a route may have no service
	DirectResponse    *DirectResponse    `key:"direct_response"` // likewise
	AdminAPI          string             `key:"admin_api" oneof:"read"`
	ErrorPages        []RouteErrorPage   `key:"error_pages"`
	CORS              *route.CORSOptions `key:"cors"`
	HostHeader        string             `key:"host_header"` // "peer", an authority, or empty: the client's
	RequestHeaders    *HeaderEdits       `key:"request_headers"`
	ResponseHeaders   *HeaderEdits       `key:"response_headers"`
	Timeouts          *RouteTimeouts     `key:"timeouts"`
	Retry             *RouteRetry        `key:"retry"`
	BodyLimit         *Size              `key:"body_limit" min:"1" max:"1024GiB"` // nil: client.limits.body
	RateLimit         *RateLimit         `key:"rate_limit"`
	Criticality       string             `key:"criticality" oneof:"critical|normal|sheddable"` // empty: normal
	Allow             []Network          `key:"allow" format:"network"`                        // of clients; empty: all
	Deny              []Network          `key:"deny" format:"network"`                         // has precedence over Allow
	ClientCertificate string             `key:"client_certificate" oneof:"required"`           // that the listener has verified; empty: none is needed
	// ClientCertificates are names, of which a client's certificate must have one; empty: any.
	ClientCertificates []CertificateName `key:"client_certificates" format:"certificate"`
	BasicAuth          *BasicAuth        `key:"basic_auth"`
	JWT                *JWT              `key:"jwt"`
	ForwardAuth        *ForwardAuth      `key:"forward_auth"`
	Compress           *Compress         `key:"compress"`

	// Variables are those of all keys of the route, or of the named actions.
	Variables decoding.Variables `key:"-"`

	built *route.Actions `key:"-"` // see Built
}

// Built returns what the actions do, nil for nothing. A limiter, users, keys of an issuer, a client
// of an authentication server, what files have and the admin API are missing: they outlive a
// configuration. The caller must not change it.
func (a *Actions) Built() *route.Actions { return a.built }

// criticalities are the values of [Actions].Criticality.
var criticalities = map[string]balancer.Criticality{
	"critical": balancer.CriticalityCritical, "normal": balancer.CriticalityNormal, "sheddable": balancer.CriticalitySheddable,
}

// Compress compresses responses.
type Compress struct {
	Encodings []Encoding  `key:"encodings" oneof:"zstd|br|gzip" format:"encoding"` // the first is preferred; not empty after loading
	Types     []MediaType `key:"types" format:"media_type"`                        // likewise not empty
	MinLength Size        `key:"min_length" default:"1KiB" min:"0" max:"1GiB"`
	Level     Level       `key:"level" default:"default" oneof:"fast|default|best" format:"level"`
}

// Defaults of [Compress]. The types are the ones whose content is text or compresses as well;
// text/event-stream is not among them, because a response without an end keeps its memory.
var (
	defaultEncodings = typedList[string, compression.Encoding]("encoding", "zstd", "br", "gzip")
	defaultTypes     = typedList[string, compression.Types]("media_type",
		"text/html", "text/css", "text/plain", "text/javascript", "text/xml", "text/csv", "text/markdown", "text/calendar", "text/vtt",
		"application/json", "application/*+json", "application/x-ndjson", "application/javascript",
		"application/xml", "application/*+xml", "application/wasm", "application/yaml",
		"image/svg+xml", "image/x-icon", "image/vnd.microsoft.icon", "image/bmp",
		"font/ttf", "font/otf", "application/vnd.ms-fontobject")
)

// ForwardAuth asks a server about each request.
type ForwardAuth struct {
	URL             Location `key:"url" format:"http_url" required:"yes"`
	ResponseHeaders []string `key:"response_headers" format:"token"` // of the answer, for peers
	// ClientHeaders are those of an answer that allows the request, for its client.
	ClientHeaders []string `key:"client_headers" format:"token"`
	Decides       []string `key:"decides" oneof:"service|group|path"`
	// Body is how much of the request's body is sent to the server.
	Body Size `key:"body" default:"0" min:"0" max:"64KiB"`
	// Cache are the headers of the question on which answers depend; empty: none is kept.
	Cache   []string      `key:"cache" format:"token"`
	Timeout time.Duration `key:"timeout" default:"5s" min:"1ms" max:"1m"`

	// ByDocument says that a document of a registry names the URL, and not the file.
	ByDocument bool `key:"-"`
}

// JWT requires a token of a user, with a signature by a key of its issuer. Either JWKSFile or
// JWKSURL is set.
type JWT struct {
	JWKSFile string   `key:"jwks_file" format:"file"`
	JWKSURL  Location `key:"jwks_url" format:"http_url"`
	// Audiences is empty only with Require, and Algorithms is not empty after loading.
	auth.TokenRules
	From   TokenPlace `key:"from" default:"bearer" format:"token_place"`
	Remove bool       `key:"remove" default:"false"` // peers do not get the token
	// Require are claims, each with values of which it must have one.
	Require map[string][]string `key:"require" format:"quotable"`
	// Headers are claims by the names of fields that peers get.
	Headers map[string]string `key:"headers" format:"token"`

	// ByDocument says that a document of a registry names the URL, and not the file.
	ByDocument bool `key:"-"`
}

// BasicAuth requires a password. Either UsersFile or Users is set.
type BasicAuth struct {
	UsersFile string   `key:"users_file" format:"file"` // in the format of htpasswd
	Users     []Secret `key:"users"`                    // lines of such a file
	Realm     string   `key:"realm" default:"restricted" format:"quotable"`
}

// Lines returns the users that are listed, one a line: they are secret.
func (b *BasicAuth) Lines() (lines []string) {
	for _, line := range b.Users {
		lines = append(lines, line.Reveal())
	}
	return lines
}

// RateLimit limits the requests for each key.
type RateLimit struct {
	Rate  int           `key:"rate" min:"1" max:"1000000" required:"yes"`
	Per   time.Duration `key:"per" default:"1s" min:"1ms" max:"24h"`
	Burst int           `key:"burst" default:"0" min:"0" max:"1000000"` // 0: Rate; not 0 after loading
	Key   HashKey       `key:"key" default:"client_address" format:"rate_key"`
	Scope string        `key:"scope" default:"replica" oneof:"replica|fleet"`
}

// OfFleet reports whether all replicas keep the limit together.
func (l *RateLimit) OfFleet() bool { return l.Scope == "fleet" }

// keyOfRoute is the key of a limit that all requests of the route have together.
const keyOfRoute = "route"

// What begins the key of a limit for each value of a claim, and of a header of the answer of the
// authentication server.
const (
	claimKey  = "claim "
	answerKey = "answer "
)

// parseRateKey parses a [RateLimit.Key].
func parseRateKey(s string) (key route.HashKey, err error) {
	if s == keyOfRoute {
		return key, nil
	}
	if name, ok := strings.CutPrefix(s, claimKey); ok && isQuotable(name) {
		return route.HashKey{Source: route.HashClaim, Name: name}, nil
	}
	if name, ok := strings.CutPrefix(s, answerKey); ok {
		key, err = route.ParseHashKey("header " + name)
		key.Source = route.HashAnswer
		return key, err
	}
	if key, err = route.ParseHashKey(s); err == nil && key.Source != route.HashClientAddress && key.Source != route.HashHeader {
		err = errors.New("not a key of a rate limit")
	}
	return key, err
}

// hostOfPeer is the value of [Actions.HostHeader] for the address of the peer.
const hostOfPeer = "peer"

// Rewrite replaces paths that match a regular expression.
type Rewrite struct {
	Regexp Regexp   `key:"regexp" format:"regexp" required:"yes"`
	To     Location `key:"to" required:"yes"` // as in route.PathOptions
}

// Redirect answers requests with another URL.
type Redirect struct {
	// Regexp, if it is not empty, is as in route.NewRegexpRedirect. A route with it needs
	// a service.
	Regexp  Regexp `key:"regexp" format:"regexp"`
	To      string `key:"to" required:"yes"` // as in route.NewRedirect
	Code    int    `key:"code" default:"308" oneof:"301|302|303|307|308"`
	GetCode *int   `key:"get_code" oneof:"301|302|303|307|308"` // status for GET; nil: Code
}

// needsService reports whether not every request is redirected or answered.
func (a *Actions) needsService() bool {
	return a.DirectResponse == nil && a.AdminAPI == "" && (a.Redirect == nil || a.Redirect.Regexp.Text != "")
}

// HeaderEdits edit the fields of a message, as in route.NewHeaderEdits. A value may be a
// credential.
type HeaderEdits struct {
	Set    map[string]Secret `key:"set" format:"token"`
	Add    map[string]Secret `key:"add" format:"token"`
	Remove []string          `key:"remove" format:"token"`
}

func texts(values map[string]Secret) map[string]string {
	all := make(map[string]string, len(values))
	for name, value := range values {
		all[name] = value.Reveal()
	}
	return all
}

// RouteTimeouts replace the timeouts of the service; nil: they do not.
type RouteTimeouts struct {
	Connect        *time.Duration `key:"connect" min:"1ms" max:"10m"`
	ResponseHeader *time.Duration `key:"response_header" min:"1ms" max:"24h"`
	Idle           *time.Duration `key:"idle" min:"1ms" max:"24h"`
	Tunnel         *time.Duration `key:"tunnel" min:"1s" max:"720h"`
}

// RouteRetry replaces parts of the service's [Retry]; nil: it does not. The budget is that
// of the service.
type RouteRetry struct {
	Attempts      *int           `key:"attempts" min:"1" max:"5"`
	PerTryTimeout *time.Duration `key:"per_try_timeout" min:"0s" max:"1h"`
	Body          *Size          `key:"body" min:"0" max:"16MiB"`
}

// maxFill is the longest time in which an empty bucket of a rate limit may become full.
const maxFill = 365 * 24 * time.Hour

// build checks what the rules of single keys do not, and sets what [Actions.Built] returns.
func (a *Actions) build(d *decoder, match, key string) {
	if reflect.ValueOf(a).Elem().IsZero() {
		return
	}
	built := &route.Actions{
		ClientCertificate: a.ClientCertificate != "" || len(a.ClientCertificates) > 0, CertificateNames: Values(a.ClientCertificates),
		HostOfPeer: a.HostHeader == hostOfPeer,
	}
	var err error
	path := route.PathOptions{Strip: a.StripPrefix, StripString: match == string(route.PathStringPrefix), Add: a.AddPrefix}
	if a.Rewrite != nil {
		path.Rewrite, path.To, path.Bounded = a.Rewrite.Regexp.Value, a.Rewrite.To.Reveal(), d.bounded()
	}
	built.Path, err = route.NewPathEdits(path)
	if wrong, ok := errors.AsType[*route.OptionError](err); ok && wrong.Key == "rewrite.to" {
		wrong.Value = a.Rewrite.To.String()
	}
	refuseOption(d, key, err)
	if a.Redirect != nil {
		built.Redirect = a.Redirect.build(d, decoding.Join(key, "redirect"))
	}
	if !built.HostOfPeer {
		built.Host = a.HostHeader
	}
	if built.Host != "" && !isAuthority(built.Host) {
		d.Refuse(decoding.Join(key, "host_header"), a.HostHeader, `want "peer", or `+formats["authority"].Want)
	}
	if len(a.Allow)+len(a.Deny) > 0 {
		built.Access = route.NewAccess(Values(a.Allow), Values(a.Deny))
	}
	if a.RateLimit != nil {
		built.RateLimit = a.RateLimit.build(d, decoding.Join(key, "rate_limit"), a)
	}
	if a.BasicAuth != nil {
		built.BasicAuth = a.BasicAuth.build(d, decoding.Join(key, "basic_auth"))
	}
	if a.JWT != nil {
		built.JWT = a.JWT.build(d, decoding.Join(key, "jwt"))
		built.Authorized = built.JWT.Written
		if a.BasicAuth != nil {
			d.Refuse(decoding.Join(key, "jwt"), "", "want one of basic_auth and jwt: each says who the user is")
		}
	}
	if a.ForwardAuth != nil {
		built.ForwardAuth = a.ForwardAuth.build(d, decoding.Join(key, "forward_auth"), &built.Authorized)
	}
	if a.Compress != nil {
		built.Compress = a.Compress.build()
	}
	if a.BodyLimit != nil {
		built.BodyLimit = int64(*a.BodyLimit)
	}
	built.Criticality = criticalities[a.Criticality]
	built.RequestHeaders = a.RequestHeaders.build(d, decoding.Join(key, "request_headers"))
	built.ResponseHeaders = a.ResponseHeaders.build(d, decoding.Join(key, "response_headers"))
	if a.CORS != nil {
		built.CORS = buildCORS(d, decoding.Join(key, "cors"), a.CORS)
		built.ResponseHeaders.Dropped = append(built.ResponseHeaders.Dropped, route.CORSFields...)
	}
	if a.DirectResponse != nil {
		built.DirectResponse = a.DirectResponse.build(d, decoding.Join(key, "direct_response"))
	}
	if a.AdminAPI != "" {
		built.Handler = new(route.Handler)
	}
	built.ErrorPages = buildErrorPages(d, decoding.Join(key, "error_pages"), a.ErrorPages)
	if !reflect.DeepEqual(*built, route.Actions{}) {
		a.built = built
	}
}

// build checks the users that are listed; those of a file are read when it is used.
func (b *BasicAuth) build(d *decoder, key string) *route.BasicAuth {
	switch {
	case (b.UsersFile == "") == (len(b.Users) == 0):
		d.Refuse(key, "", "want one of users_file and users")
	case len(b.Users) > 0:
		if _, err := auth.ListedUsers(b.Lines(), d.bounded()); err != nil {
			d.Refuse(decoding.Join(key, "users"), "", err.Error())
		}
	}
	return &route.BasicAuth{Realm: b.Realm}
}

// build checks the limit of a route with the actions of.
func (l *RateLimit) build(d *decoder, key string, of *Actions) *route.RateLimit {
	l.Burst = cmp.Or(l.Burst, l.Rate)
	if fill := float64(l.Per) / float64(max(l.Rate, 1)) * float64(l.Burst); fill > float64(maxFill) {
		d.Refuse(decoding.Join(key, "burst"), strconv.Itoa(l.Burst), "want a burst that the rate allows again within a year")
	}
	built := &route.RateLimit{PerRoute: l.Key.Text == keyOfRoute, Key: l.Key.Value}
	switch l.Key.Value.Source {
	case route.HashClaim:
		name := auth.NameClaim(l.Key.Value.Name)
		built.Claim = &name
		if of.JWT == nil {
			d.Refuse(decoding.Join(key, "key"), l.Key.Text, "want a route with jwt, which checks the token")
		}
	case route.HashAnswer:
		if of.ForwardAuth == nil {
			d.Refuse(decoding.Join(key, "key"), l.Key.Text, "want a route with forward_auth, whose answer has the header")
		}
	}
	return built
}

// build checks what depends on nothing but the actions of the route. authorized are the edits by
// what is checked before, to which it adds its own.
func (f *ForwardAuth) build(d *decoder, key string, authorized *route.HeaderEdits) *route.ForwardAuth {
	names := func(list string, names []string) route.HeaderEdits {
		edits, err := route.NewHeaderEdits(nil, nil, names)
		if wrong, ok := errors.AsType[*route.OptionError](err); ok {
			d.Refuse(decoding.Join(key, list), wrong.Value, wrong.Err.Error())
		}
		return edits
	}
	copied := names("response_headers", f.ResponseHeaders)
	for _, name := range copied.Dropped {
		if slices.Contains(authorized.Dropped, name) {
			d.Refuse(decoding.Join(key, "response_headers"), name, "jwt writes or removes this header already")
		}
	}
	*authorized = authorized.Then(copied)
	if f.Body > 0 && len(f.Cache) > 0 {
		d.Refuse(decoding.Join(key, "cache"), strings.Join(f.Cache, ", "), "not with body: want answers that depend on headers only")
	}
	return &route.ForwardAuth{
		Copied: copied.Dropped, ToClients: names("client_headers", f.ClientHeaders).Dropped, BodyBytes: int(f.Body),
		DecidesService: f.decides("service"), DecidesGroup: f.decides("group"), DecidesPath: f.decides("path"),
	}
}

// decides reports whether the answer may choose that; f may be nil.
func (f *ForwardAuth) decides(what string) bool { return f != nil && slices.Contains(f.Decides, what) }

func (c *Compress) build() *compression.Settings {
	if len(c.Encodings) == 0 {
		c.Encodings = defaultEncodings
	}
	if len(c.Types) == 0 {
		c.Types = defaultTypes
	}
	return &compression.Settings{
		Encodings: Values(c.Encodings), Types: slices.Concat(Values(c.Types)...), MinBytes: int64(c.MinLength), Level: c.Level.Value,
	}
}

func (j *JWT) build(d *decoder, key string) *route.JWT {
	if len(j.Algorithms) == 0 {
		j.Algorithms = append(j.Algorithms, "RS256", "ES256")
	}
	rules := &auth.Tokens{TokenRules: j.TokenRules}
	built := &route.JWT{Tokens: rules, Place: j.From.Value}
	switch {
	case (j.JWKSFile == "") == j.JWKSURL.IsZero():
		d.Refuse(key, "", "want one of jwks_file and jwks_url, which have the keys of the issuer")
	case len(j.Audiences)+len(j.Require) == 0:
		d.Refuse(key, "", "want audiences, or a claim in require that no token for another service has")
	}
	for _, name := range slices.Sorted(maps.Keys(j.Require)) {
		rules.Require = append(rules.Require, auth.Requirement{Claim: auth.NameClaim(name), Texts: j.Require[name]})
		if len(j.Require[name]) == 0 {
			d.Refuse(decoding.Join(key, "require."+name), "", "want a list of values, such as [admin]")
		}
	}
	var removed []string
	if j.Remove {
		if place := j.From.Value; place.Cookie != "" {
			d.Refuse(decoding.Join(key, "remove"), "true", "peers get the cookie with the others: want false, or another place in from")
		} else {
			removed = append(removed, cmp.Or(place.Header, "authorization"))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(j.Headers)) {
		removed = append(removed, name)
		built.Headers = append(built.Headers, route.ClaimHeader{Name: name, Claim: auth.NameClaim(j.Headers[name])})
		if j.Headers[name] == "" {
			d.Refuse(decoding.Join(key, "headers."+name), "", "want the name of a claim")
		}
	}
	var err error
	built.Written, err = route.NewHeaderEdits(nil, nil, removed)
	if wrong, ok := errors.AsType[*route.OptionError](err); ok {
		d.Refuse(decoding.Join(key, "headers."+wrong.Value), "", wrong.Err.Error())
	}
	return built
}

func (r *Redirect) build(d *decoder, key string) (built *route.Redirect) {
	codes := route.RedirectCodes{Code: r.Code}
	if r.GetCode != nil {
		codes.Get = *r.GetCode
	}
	var err error
	if r.Regexp.Text != "" {
		built, err = route.NewRegexpRedirect(r.Regexp.Value, r.To, codes, d.bounded())
	} else {
		built, err = route.NewRedirect(r.To, codes)
	}
	if err != nil {
		d.Refuse(decoding.Join(key, "to"), r.To, err.Error())
	}
	return built
}

func (e *HeaderEdits) build(d *decoder, key string) (built route.HeaderEdits) {
	if e == nil {
		return built
	}
	built, err := route.NewHeaderEdits(texts(e.Set), texts(e.Add), e.Remove)
	if wrong, ok := errors.AsType[*route.OptionError](err); ok {
		at, value := decoding.Join(key, wrong.Key), wrong.Value
		if wrong.Key != "remove" {
			at, value = decoding.Join(at, wrong.Value), "" // it may be a credential
		}
		d.Refuse(at, value, wrong.Err.Error())
	}
	return built
}
