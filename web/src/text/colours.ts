// Syntax highlighting with the common languages.
import highlight from "highlight.js/lib/common";

export default highlight;
