//! Keys for tests only: nothing outside this module trusts them.

/// RSA, 2048 bits: private key, PKCS #8.
pub(super) const RSA_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQDVkrFHkblBzQYA
+ulSUllLIXNGz8C09IYh6Mp/nRwD4nMlYzjVoYuNVDnDALnLgOOVQOyPvszmx8fY
brlIe74xzUiut4sBay0V6D7KobnFLSlY0VbuK2uqghM4EKL8z26U9RMyqELaPdyy
reZWDiqRBCHPA4kPZoY99cYot3x21saQMS4J7AwP8rDc96AWjzUgDmqzvdLKL/ee
zA4HzkmS/Dqf8pb2I2prEBczZ4qYmzGCIIBbrPBl6AoAR4uxSvSUPCVtNf9sA+Zq
j3Cz8RsZcHUUrgcu+nobDVgLPRYycGmXUtlFGS6wViVJVA+uJ3mpvnS2LNuuQQkb
CoBJ584ZAgMBAAECggEAIrFKQl+xyfZJriGUApcVYa6smNlZCpv46Ou1by7gdOIV
RcK9Ifi0oE/I9Tv6Mkw8y8so0j3Sb3+O30G3L8bIEbNwxc7TUfbsszUPdB96u4SX
RZH1zsj3W5J3GEGdlDcG1cQMqwspluV7Ivw8IQj6kaVr74J5wmprTofMuWL64Ru8
rERGUNKoshVkEJ2nWnN3/57ZLQPalco956L05+MwL7kXXWZxqsoVHN3ixlxM/rJH
80aYkRne0sr2Txa2MyK27K4Zc9to5yp7TLoFjrUPxcjymbugNC2bLCU5GL3kBaOp
VmtTwSTLNE7xPPzB9ZElBFMJwcFspc/F/J2MrPdHXQKBgQD66+pHhDOKLZQ34fS+
lYq9Q+kAaUVMOuntW21x9kG9yuuB5R+G+YxHNWA2vyM62W3FJDxr6R3oho3kU/2p
9h7z2pDmvHx+EeEaMKHrZl5iE2BMkx0J77119sOSnQjCn11siF+oUmnHQjGU0lSw
GgK1N9mmv5RFq49dJbzEXd0KxQKBgQDZ5UQBv1USafHfPzQnfBR9pzXEImU/2f+P
KBwEGza1Opnrp+XfKMn/51jxYinc9S/M6is9O5UZNN//R86b7pMiNRvAmBd1D+rK
8l+wlRevm13Z8JGP19ux5oN3bzPhmjAOWjUkcbUERPPZhAmHTw2783PXUQn+o9kS
YjyD6/67RQKBgQCDm5WH6Tk3MmzZWrSJ+dmJJ8NgKdblAsmLazbeXTFiILqhqNF+
dAk1mDNcw6fwx/YhPr5KQz0ipuBpb/xOVv8pG+yAeUA6x5nvqK5kz46VlmAeCdNj
UNFovAMcNS1RF1FjCaxSltdQYdGrox40N5BQCHkqUrWsTS2mx5JY1HqJmQKBgEm0
9SlGKKfe8LOc9K56mY/btSNQo0FTI9CwN7Hn5rytQw3lMKwpZxNKldqpYxHcWrwN
Zm0DL69kJHV9O9WhgWHr5yRiDmVJ6hmWnWnlNSrw+nFToFmxIh7upAANvNYOyzy/
pQRb9mioTniA4pxD0JiIhOIMBr59fFtsoZ3agcOlAoGBAKH6DFOPT2LrkPufov/1
1gQ4oHLSiKOYS7Q+aB3jFrbduSKpx4iGIYJgpQhBTaTEQ6CKl2xP1pPI4Co+HrGY
IXsZE56npV9U6nC+QyLSgPMkKma6DetzSmJoORrWHM472Lyna9/JrQQoaGWbO2Rt
eQvx7HbBikMHKBO3x2rCkKCT
-----END PRIVATE KEY-----
";

/// RSA, 2048 bits: public key.
pub(super) const RSA_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA1ZKxR5G5Qc0GAPrpUlJZ
SyFzRs/AtPSGIejKf50cA+JzJWM41aGLjVQ5wwC5y4DjlUDsj77M5sfH2G65SHu+
Mc1IrreLAWstFeg+yqG5xS0pWNFW7itrqoITOBCi/M9ulPUTMqhC2j3csq3mVg4q
kQQhzwOJD2aGPfXGKLd8dtbGkDEuCewMD/Kw3PegFo81IA5qs73Syi/3nswOB85J
kvw6n/KW9iNqaxAXM2eKmJsxgiCAW6zwZegKAEeLsUr0lDwlbTX/bAPmao9ws/Eb
GXB1FK4HLvp6Gw1YCz0WMnBpl1LZRRkusFYlSVQPrid5qb50tizbrkEJGwqASefO
GQIDAQAB
-----END PUBLIC KEY-----
";

/// RSA, 2048 bits: public key as a JWK.
pub(super) const RSA_JWK: &str = r#"{"kty":"RSA","n":"1ZKxR5G5Qc0GAPrpUlJZSyFzRs_AtPSGIejKf50cA-JzJWM41aGLjVQ5wwC5y4DjlUDsj77M5sfH2G65SHu-Mc1IrreLAWstFeg-yqG5xS0pWNFW7itrqoITOBCi_M9ulPUTMqhC2j3csq3mVg4qkQQhzwOJD2aGPfXGKLd8dtbGkDEuCewMD_Kw3PegFo81IA5qs73Syi_3nswOB85Jkvw6n_KW9iNqaxAXM2eKmJsxgiCAW6zwZegKAEeLsUr0lDwlbTX_bAPmao9ws_EbGXB1FK4HLvp6Gw1YCz0WMnBpl1LZRRkusFYlSVQPrid5qb50tizbrkEJGwqASefOGQ","e":"AQAB"}"#;

/// RSA, 2048 bits: public key, PKCS #1.
pub(super) const RSA_PUBLIC_PKCS1: &str = "-----BEGIN RSA PUBLIC KEY-----
MIIBCgKCAQEA1ZKxR5G5Qc0GAPrpUlJZSyFzRs/AtPSGIejKf50cA+JzJWM41aGL
jVQ5wwC5y4DjlUDsj77M5sfH2G65SHu+Mc1IrreLAWstFeg+yqG5xS0pWNFW7itr
qoITOBCi/M9ulPUTMqhC2j3csq3mVg4qkQQhzwOJD2aGPfXGKLd8dtbGkDEuCewM
D/Kw3PegFo81IA5qs73Syi/3nswOB85Jkvw6n/KW9iNqaxAXM2eKmJsxgiCAW6zw
ZegKAEeLsUr0lDwlbTX/bAPmao9ws/EbGXB1FK4HLvp6Gw1YCz0WMnBpl1LZRRku
sFYlSVQPrid5qb50tizbrkEJGwqASefOGQIDAQAB
-----END RSA PUBLIC KEY-----
";

/// ECDSA on P-256: private key, PKCS #8.
pub(super) const P256_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgKTNkz3KIMudPKOkR
0aljhT1PBr4MCw8lw8WW2Q1YlxehRANCAAStPzjmchNKOEjSG2C38HFGzTNRFnMD
x5OXCrm4CZ1036h7y6J94kLS0KqGQwOmhTyAaQBCQ28XPZDD0Vv/qnfN
-----END PRIVATE KEY-----
";

/// ECDSA on P-256: public key.
pub(super) const P256_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAErT845nITSjhI0htgt/BxRs0zURZz
A8eTlwq5uAmddN+oe8uifeJC0tCqhkMDpoU8gGkAQkNvFz2Qw9Fb/6p3zQ==
-----END PUBLIC KEY-----
";

/// ECDSA on P-256: public key as a JWK.
pub(super) const P256_JWK: &str = r#"{"kty":"EC","x":"rT845nITSjhI0htgt_BxRs0zURZzA8eTlwq5uAmddN8","y":"qHvLon3iQtLQqoZDA6aFPIBpAEJDbxc9kMPRW_-qd80","crv":"P-256"}"#;

/// ECDSA on P-384: private key, PKCS #8.
pub(super) const P384_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDA0Cuui3Q31Eetb+9wo
J1WstJe4fUAv1/DYjF/uzNm3nTfSZOf2ZWgY5wuIn4u7grOhZANiAAQ5EAzngx0a
ph8+J0bxAu31JuXJUpMfB10t+fXJvz1IcAX6vOdjdAZz6w47gDUq1aXdQyiFexaV
lk5UfCdwRhnMmU8L+SyyD3xI2WdBRmZotiTARErYgHOVmhgKcclU0Ts=
-----END PRIVATE KEY-----
";

/// ECDSA on P-384: public key.
pub(super) const P384_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEORAM54MdGqYfPidG8QLt9SblyVKTHwdd
Lfn1yb89SHAF+rznY3QGc+sOO4A1KtWl3UMohXsWlZZOVHwncEYZzJlPC/kssg98
SNlnQUZmaLYkwERK2IBzlZoYCnHJVNE7
-----END PUBLIC KEY-----
";

/// ECDSA on P-384: public key as a JWK.
pub(super) const P384_JWK: &str = r#"{"kty":"EC","x":"ORAM54MdGqYfPidG8QLt9SblyVKTHwddLfn1yb89SHAF-rznY3QGc-sOO4A1KtWl","y":"3UMohXsWlZZOVHwncEYZzJlPC_kssg98SNlnQUZmaLYkwERK2IBzlZoYCnHJVNE7","crv":"P-384"}"#;

/// Ed25519: private key, PKCS #8.
pub(super) const ED_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIO0BdS2MygsrSO4AJEFIbO60F5hFvjcBGa5SrXUvkwcn
-----END PRIVATE KEY-----
";

/// Ed25519: public key.
pub(super) const ED_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEARfs5evznEUrQmaSW+ScfeQT1C+/r987O+m4bwl3Jb1Q=
-----END PUBLIC KEY-----
";

/// Ed25519: public key as a JWK.
pub(super) const ED_JWK: &str = r#"{"crv":"Ed25519","x":"Rfs5evznEUrQmaSW-ScfeQT1C-_r987O-m4bwl3Jb1Q","kty":"OKP"}"#;

/// RSA, 1024 bits: too short.
pub(super) const RSA_1024_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCyoZj6jdlvlzji6HuyMBjufsA0
vaP6XwOhknTUmZGgiAlKl0knpdjb/LqcMExPIzLEKLjKuSE0m/UOjcp/MRywqXEz
rwhKKgUstt0TVyxtBhyLZyEent/OLy9xwuExQAmw8pMU52XsMuwaN06ajGLZL89L
olx0U/k5SqOYlq25+wIDAQAB
-----END PUBLIC KEY-----
";
