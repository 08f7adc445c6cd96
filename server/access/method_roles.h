// Which roles a method takes: the one table of it.

#ifndef SWAA_SERVER_ACCESS_METHOD_ROLES_H_
#define SWAA_SERVER_ACCESS_METHOD_ROLES_H_

#include <string>
#include <string_view>

#include "server/access/caller.h"

namespace swaa::server {

// The roles any of which a call of this path ("/package.Service/Method") takes. kNoRole: it is open
// to everybody, token or not. A path that the table does not have takes kAdminister, so that a new
// method is nobody's by oversight.
Roles RolesOfMethod(std::string_view path);

// "generate, observe".
std::string RolesText(Roles roles);

}  // namespace swaa::server

#endif  // SWAA_SERVER_ACCESS_METHOD_ROLES_H_
