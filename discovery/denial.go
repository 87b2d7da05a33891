package discovery

// A Denial is why the mesh does not let sluice connect to an instance.
type Denial struct {
	Source      string // sluice's name in the mesh
	Destination string // the service
	Why         string // such as "the intention sluice → web (precedence 9)"
}
