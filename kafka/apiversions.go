package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// maxSoftwareBytes bounds what a client may call itself.
const maxSoftwareBytes = 255

// apiVersions answers with what is served. Nothing is listed that is not: of features
// only that of KIP-848's groups, and that where there are any; clients know from the
// others what they have to do without.
func (s *Server) apiVersions(_ context.Context, p *peer, req *kmsg.ApiVersionsRequest) kmsg.Response {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.Version = req.Version
	if req.Version >= 3 {
		if !validSoftware(req.ClientSoftwareName) || !validSoftware(req.ClientSoftwareVersion) {
			resp.ErrorCode = p.error(errcode.Errorf(errcode.InvalidRequest, "software %q version %q", req.ClientSoftwareName, req.ClientSoftwareVersion))
			return resp
		}
		p.conn.log.Debug("client", "id", p.clientID, "software", req.ClientSoftwareName, "version", req.ClientSoftwareVersion)
	}
	resp.FinalizedFeaturesEpoch = s.broker.MetadataIndex()
	if s.groups != nil {
		listGroupFeature(resp)
	}
	for i := range s.apis.all {
		resp.ApiKeys = append(resp.ApiKeys, s.apis.all[i].offer())
	}
	return resp
}

// listGroupFeature lists group.version at 1. Some clients cannot read a supported
// feature that begins at 0 in an answer of version 3 (KAFKA-17011): as with Kafka it
// is not in there.
func listGroupFeature(resp *kmsg.ApiVersionsResponse) {
	finalized := kmsg.NewApiVersionsResponseFinalizedFeature()
	finalized.Name, finalized.MinVersionLevel, finalized.MaxVersionLevel = "group.version", 1, 1
	resp.FinalizedFeatures = append(resp.FinalizedFeatures, finalized)
	if resp.Version >= 4 {
		supported := kmsg.NewApiVersionsResponseSupportedFeature()
		supported.Name, supported.MaxVersion = "group.version", 1
		resp.SupportedFeatures = append(resp.SupportedFeatures, supported)
	}
}

// offer is the api as ApiVersions lists it.
func (a *api) offer() kmsg.ApiVersionsResponseApiKey {
	k := kmsg.NewApiVersionsResponseApiKey()
	k.ApiKey, k.MinVersion, k.MaxVersion = a.key, a.advertised, a.max
	return k
}

// newerVersions is the answer to an ApiVersions request of a version that is not
// served. It is of version 0, which every client reads, and says which versions
// of ApiVersions there are, so that the client asks again (KIP-511).
func (q *request) newerVersions() []byte {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.ErrorCode = q.error(errcode.Errorf(errcode.UnsupportedVersion, "ApiVersions version %d", q.version))
	resp.ApiKeys = append(resp.ApiKeys, q.api.offer())
	return resp.AppendTo(nil)
}

// validSoftware reports whether s is what a client may call itself: letters and
// digits, and between them hyphens and dots.
func validSoftware(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		inner := i > 0 && i < len(s)-1 && (c == '-' || c == '.')
		if !letter && !inner {
			return false
		}
	}
	return s != "" && len(s) <= maxSoftwareBytes
}
