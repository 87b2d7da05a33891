package tags

import "strings"

// Masked returns a tag for whoever need not have the right to read the registry: without the users
// of Traefik's basicauth and digestauth, whose passwords sluice does not use.
func Masked(tag string) string {
	key, _, found := strings.Cut(tag, "=")
	if found && strings.HasSuffix(strings.TrimSpace(strings.ToLower(key)), "auth.users") {
		return key + "=***"
	}
	return tag
}
